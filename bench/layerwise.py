"""Compares layer-wise scaling with uniform layers at a small scale, as in the OpenELM paper.

    layerwise.py OPENELM TOKENIZER TRAIN VALID [STEPS]

Two models with six layers, width 128 and equal parameters within 1 %: in one, query heads and FFN
widths grow with depth as in OpenELM (multipliers 0.5 to 1 and 0.5 to 4); in the other, all layers
are equal. Both are trained on TRAIN with CoreNet's recipe for STEPS steps (400) of 8 packed rows of
256 tokens, with seeds 1, 2 and 3 (initial weights and data order), and evaluated on VALID (JSONL
files of {"text"} rows) several times. Prints bits per byte of each run, with mean and spread, and
plots the curves to bench/layerwise.png (needs matplotlib). An interrupted script continues: results
are kept in out/layerwise.
"""

import json
import statistics
import subprocess
import sys
from pathlib import Path

WIDTH, LAYERS, HEAD, GROUPS, DIVISOR, SEEDS = 128, 6, 32, 2, 4, (1, 2, 3)
ROWS, LENGTH = 8, 256


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
        subprocess.run([str(part) for part in command], check=True)
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    tried = [line for line in map(json.loads, lines) if "bits_per_byte" in line]
    return [(line["iteration"] * ROWS * LENGTH, line["bits_per_byte"]) for line in tried]


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


def main(openelm, tokenizer, text, valid, steps="400"):
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
    table, curves = {}, {}
    for name, (count, multipliers) in models.items():
        runs = []
        for seed in SEEDS:
            folder = Path("out/layerwise") / f"{name}-{seed}-{steps}"
            folder.parent.mkdir(parents=True, exist_ok=True)
            runs.append(train(openelm, folder, [*common, *multipliers], seed))
        curves[name] = runs
        bits = [run[-1][1] for run in runs]
        table[name] = {
            "parameters": count,
            "multipliers": [str(part) for part in multipliers[1::2]],
            "bits_per_byte": bits,
            "mean": statistics.mean(bits),
            "deviation": statistics.stdev(bits),
        }
    print(json.dumps(table, indent=1))
    draw(curves)


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        sys.exit(__doc__)
    main(*sys.argv[1:])
