"""Compares layer-wise scaling with uniform layers at a small scale, as in the OpenELM paper.

    layerwise.py OPENELM TOKENIZER TRAIN VALID [STEPS]

Two models with six layers, width 128 and equal parameters within 1 %: in one, query heads and FFN
widths grow with depth as in OpenELM (multipliers 0.5 to 1 and 0.5 to 4); in the other, all layers
are equal. Both are trained on TRAIN with CoreNet's recipe for STEPS steps (2,000) of 8 packed rows
of 256 tokens, with seeds 1, 2 and 3 (initial weights and data order); two runs at a time, with a
thread each. VALID and TRAIN are JSONL files of {"text"} rows.

`openelm evaluate` then compares the models of each seed on VALID and on tasks: the next sentence of
VALID's texts among four of the same text, and ARC and PIQA if OPENELM_TEST_DATA names a folder with
eval/{ARC-Easy,ARC-Challenge,piqa}.jsonl. Prints JSON; plots bits per byte over training to
bench/layerwise.png (needs matplotlib). An interrupted script continues: results are kept in
out/layerwise.
"""

import json
import os
import random
import re
import statistics
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

WIDTH, LAYERS, HEAD, GROUPS, DIVISOR, SEEDS = 128, 6, 32, 2, 4, (1, 2, 3)
ROWS, LENGTH = 8, 256
OUT = Path("out/layerwise")
NEXT_SENTENCE = """\
# The next sentence of a text, among four sentences of the same text.
task: next_sentence
dataset_path: next_sentence
test_split: test
output_type: multiple_choice
doc_to_text: "{{before}}"
doc_to_choice: "{{sentences}}"
doc_to_target: "{{right}}"
metric_list:
  - metric: acc
  - metric: acc_norm
metadata:
  version: 1.0
"""


def divisible(value, divisor):
    """CoreNet's `make_divisible`."""
    made = max(divisor, int(value + divisor / 2) // divisor * divisor)
    return made + divisor if made < 0.9 * value else made


def parameters(qkv, ffn, vocabulary):
    """The number of parameters of a model with these multipliers by layer."""
    total = vocabulary * WIDTH + WIDTH
    for heads, inner in zip(qkv, ffn):
        queries = divisible(WIDTH * heads, HEAD * GROUPS)
        keys = queries // GROUPS
        total += WIDTH * (queries + 2 * keys) + queries * WIDTH
        total += 3 * WIDTH * divisible(WIDTH * inner, DIVISOR) + 2 * WIDTH + 2 * HEAD
    return total


def spread(first, last):
    return [round(first + (last - first) * i / (LAYERS - 1), 2) for i in range(LAYERS)]


def alike(wanted, vocabulary):
    """Multipliers of the uniform model with the nearest number of parameters."""
    heads = [n / 100 for n in range(50, 101, 5)]
    found = min(
        ((h, f / 100) for h in heads[4:7] for f in range(50, 401)),
        key=lambda m: abs(parameters([m[0]] * LAYERS, [m[1]] * LAYERS, vocabulary) - wanted),
    )
    return found


def train(openelm, folder, arguments, seed):
    """Tokens and bits per byte at each evaluation."""
    more = ["--resume"] if (folder / "training_state.safetensors").exists() else []
    if not (folder / "model/model.safetensors").exists():
        command = [openelm, "pretrain", "--output", folder, "--seed", str(seed), *arguments, *more]
        environment = os.environ | {"OPENBLAS_NUM_THREADS": "1"}
        command = [str(part) for part in command]
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    tried = [line for line in map(json.loads, lines) if "bits_per_byte" in line]
    return [(line["iteration"] * ROWS * LENGTH, line["bits_per_byte"]) for line in tried]


def next_sentence_rows(valid):
    """Questions of 60 words and the sentence after them, three to a text of ten sentences."""
    chosen = random.Random(1)
    for line in Path(valid).read_text().splitlines():
        text = " ".join(json.loads(line)["text"].split())
        sentences = [one for one in re.split(r"(?<=[.!?]) (?=[A-Z])", text) if 40 <= len(one) <= 200]
        places = range(len(sentences))
        for place in sorted(chosen.sample(places, len(sentences) * 3 // 10)):
            start = text.index(sentences[place])
            before = text[:start].split()[-60:]
            if len(before) < 60 or text.count(sentences[place]) > 1:
                continue
            others = [one for one in sentences if one != sentences[place]]
            choices = [sentences[place], *chosen.sample(others, 3)]
            chosen.shuffle(choices)
            right = choices.index(sentences[place])
            yield {"before": " ".join(before), "sentences": choices, "right": right}


def write_rows(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def tasks(valid):
    """Options of `openelm evaluate` for the tasks, whose data are written."""
    data = OUT / "data"
    (OUT / "next_sentence.yaml").write_text(NEXT_SENTENCE)
    write_rows(data / "next_sentence/test.jsonl", next_sentence_rows(valid))
    options = ["--task", OUT / "next_sentence.yaml", "--data", data]
    if not (found := os.environ.get("OPENELM_TEST_DATA")):
        return options
    read = lambda name: map(json.loads, (Path(found) / "eval" / name).read_text().splitlines())
    for name in ("ARC-Easy", "ARC-Challenge"):
        write_rows(data / "ai2_arc" / name / "test.jsonl", read(f"{name}.jsonl"))
    piqa = (
        {
            "goal": row["question"],
            "sol1": row["choices"]["text"][0],
            "sol2": row["choices"]["text"][1],
            "label": row["choices"]["label"].index(row["answerKey"]),
        }
        for row in read("piqa.jsonl")
    )
    write_rows(data / "piqa/validation.jsonl", piqa)
    return [*options, "--tasks", "arc_easy,arc_challenge,piqa"]


def compare(openelm, models, valid, options):
    """The results of `openelm evaluate` for the layer-wise model, and its differences."""
    first, second = models
    command = [openelm, "evaluate", "--model", first, "--against", second, "--perplexity", valid]
    command += [*options, "--output-dir", OUT / f"evaluation-{first.parent.name}", "--json", "--quiet"]
    done = subprocess.run([str(part) for part in command], check=True, stdout=subprocess.PIPE)
    return json.loads(done.stdout)


def draw(curves):
    import matplotlib

    matplotlib.use("agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(7, 4.2))
    for (name, runs), color in zip(curves.items(), ("#0a5fb4", "#c1440e")):
        for nth, run in enumerate(runs):
            tokens, bits = zip(*run)
            label = None if nth else f"{name}, seeds {', '.join(map(str, SEEDS))}"
            millions = [count / 1e6 for count in tokens]
            axes.plot(millions, bits, color=color, marker="o", markersize=3, linewidth=1, label=label)
    axes.set(xlabel="million tokens", ylabel="held-out bits per byte")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.tight_layout()
    figure.savefig(Path(__file__).parent / "layerwise.png", dpi=110)


def main(openelm, tokenizer, text, valid, steps="2000"):
    place = Path(tokenizer) / "tokenizer.json" if Path(tokenizer).is_dir() else Path(tokenizer)
    vocabulary = len(json.loads(place.read_text())["model"]["vocab"])
    scaled = parameters(spread(0.5, 1.0), spread(0.5, 4.0), vocabulary)
    heads, inner = alike(scaled, vocabulary)
    uniform = parameters([heads] * LAYERS, [inner] * LAYERS, vocabulary)
    if abs(uniform - scaled) > 0.01 * scaled:
        sys.exit(f"no uniform model within 1 % of {scaled} parameters; {uniform} is the nearest")
    common = ["--data", text, "--valid", valid, "--tokenizer", tokenizer, "--iters", steps]
    common += ["--batch-size", ROWS, "--micro-batch-size", ROWS, "--max-seq-length", LENGTH]
    common += ["--num-transformer-layers", LAYERS, "--model-dim", WIDTH, "--head-dim", HEAD]
    common += ["--num-gqa-groups", GROUPS, "--ffn-dim-divisor", DIVISOR]
    common += ["--max-context-length", "512", "--learning-rate", "4e-3"]
    common += ["--save-every", "100", "--steps-per-eval", "100", "--average-last", "0"]
    models = {
        "layer-wise": (scaled, ["--qkv-multipliers", "0.5,1.0", "--ffn-multipliers", "0.5,4.0"]),
        "uniform": (uniform, ["--qkv-multipliers", heads, "--ffn-multipliers", inner]),
    }
    OUT.mkdir(parents=True, exist_ok=True)
    folder = lambda name, seed: OUT / f"{name}-{seed}-{steps}"
    with ThreadPoolExecutor(max_workers=2) as pool:
        runs = {
            (name, seed): pool.submit(train, openelm, folder(name, seed), [*common, *own], seed)
            for seed in SEEDS
            for name, (_, own) in models.items()
        }
    table, curves = {}, {}
    for name, (count, multipliers) in models.items():
        curves[name] = [runs[name, seed].result() for seed in SEEDS]
        bits = [run[-1][1] for run in curves[name]]
        table[name] = {
            "parameters": count,
            "multipliers": [str(part) for part in multipliers[1::2]],
            "bits_per_byte": bits,
            "mean": statistics.mean(bits),
            "deviation": statistics.stdev(bits),
        }
    options = tasks(valid)
    table["comparisons"] = [
        compare(openelm, [folder(name, seed) / "model" for name in models], valid, options)
        for seed in SEEDS
    ]
    print(json.dumps(table, indent=1))
    draw(curves)


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    main(*sys.argv[1:])
