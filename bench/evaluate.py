"""Times log-likelihoods of questions with `openelm score` and with mlx-lm's model class for lm-eval:
the same model, questions and BLAS.

    evaluate.py OPENELM MODEL QUESTIONS LIBMLXC

MODEL is a float32 checkpoint folder with the 270M's dimensions and a tokenizer, QUESTIONS a JSONL
file of {"question", "choices": {"text"}} rows. COUNT questions (40) become lm-eval's prompts of ARC,
whose choices share their context. Both run alternately, RUNS times (3); loading is not counted, and
memory is the peak resident size of the process. Also measures 5 examples before each question (few_shot),
for a quarter of the questions. The log-likelihoods are compared. Needs lm-eval beside mlx-lm.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

# Bytes per unit of getrusage's peak resident size.
RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024
COUNT, RUNS = int(os.environ.get("COUNT", 40)), int(os.environ.get("RUNS", 3))
EXAMPLES = 5


def rows_of(path, examples, count):
    """lm-eval's requests; the examples before each question are the same."""
    rows = [json.loads(line) for line in Path(path).read_text().splitlines()]
    prompt = lambda row: f"Question: {row['question']}\nAnswer:"
    answer = lambda row: row["choices"]["text"][row["choices"]["label"].index(row["answerKey"])]
    shots = "".join(f"{prompt(row)} {answer(row)}\n\n" for row in rows[:examples])
    for row in rows[examples : examples + count]:
        for choice in row["choices"]["text"]:
            yield {"context": shots + prompt(row), "continuation": f" {choice}"}


def run(command, environment):
    """Output, standard error and peak resident size in bytes."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        command = [str(word) for word in command]
        child = subprocess.Popen(command, stdout=output, stderr=errors, env=os.environ | environment)
        _, status, usage = os.wait4(child.pid, 0)
        output.seek(0)
        errors.seek(0)
        text, notes = output.read(), errors.read()
    if status != 0:
        sys.exit(f"{command[0]} failed:\n{notes[-2000:]}")
    return text, notes, usage.ru_maxrss * RESIDENT_UNIT


def ours(openelm, model, file, count):
    """`openelm score` reports results per second."""
    text, notes, memory = run(
        [openelm, "score", "--model", model, "--dtype", "float32", "--jsonl", file], {}
    )
    scores = [json.loads(line)["logprob"] for line in text.splitlines()]
    per_second = float(notes.split(" results/s")[0].rsplit(" ", 1)[1])
    return {"seconds": len(scores) / per_second, "peak_resident_bytes": memory}, scores


def theirs(model, file, libmlxc):
    text, _, memory = run([sys.executable, __file__, "--mlx-lm", model, file], {"LD_PRELOAD": libmlxc})
    found = json.loads(text.splitlines()[-1])
    return {"seconds": found["seconds"], "peak_resident_bytes": memory}, found["scores"]


def mlx_lm_job(model, file):
    os.environ.pop("LD_PRELOAD", None)
    import mlx.core as mx
    from lm_eval.api.instance import Instance
    from mlx_lm.evaluate import MLXLM

    rows = [json.loads(line) for line in Path(file).read_text().splitlines()]
    pairs = [(row["context"], row["continuation"]) for row in rows]
    requests = [
        Instance(request_type="loglikelihood", doc={}, arguments=pair, idx=i)
        for i, pair in enumerate(pairs)
    ]
    mx.set_default_device(mx.cpu)
    lm = MLXLM(model)
    mx.eval(lm._model.parameters())
    started = time.perf_counter()
    scores = [score for score, _ in lm.loglikelihood(requests)]
    print(json.dumps({"seconds": time.perf_counter() - started, "scores": scores}))


def measure(openelm, model, questions, libmlxc, examples, count):
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "rows.jsonl"
        rows = list(rows_of(questions, examples, count))
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        results = {"openelm": [], "mlx_lm": []}
        for _ in range(RUNS):
            found, scores = ours(openelm, model, file, count)
            results["openelm"].append(found)
            found, expected = theirs(model, file, libmlxc)
            results["mlx_lm"].append(found)
    median = lambda name, key: statistics.median(run[key] for run in results[name])
    for name in ("openelm", "mlx_lm"):
        results[f"{name}_questions_per_second"] = count / median(name, "seconds")
    results["speed_ratio"] = median("mlx_lm", "seconds") / median("openelm", "seconds")
    memory = [median(name, "peak_resident_bytes") for name in ("openelm", "mlx_lm")]
    results["memory_ratio"] = memory[0] / memory[1]
    differences = [abs(a - b) for a, b in zip(scores, expected, strict=True)]
    return {"questions": count, "examples": examples, "largest_difference": max(differences), **results}


def main(openelm, model, questions, libmlxc):
    zero_shot = measure(openelm, model, questions, libmlxc, 0, COUNT)
    few_shot = measure(openelm, model, questions, libmlxc, EXAMPLES, max(1, COUNT // 4))
    print(json.dumps({"zero_shot": zero_shot, "few_shot": few_shot}, indent=1))


if __name__ == "__main__":
    if sys.argv[1:2] == ["--mlx-lm"]:
        mlx_lm_job(*sys.argv[2:])
    elif len(sys.argv) != 5:
        sys.exit(__doc__)
    else:
        main(*sys.argv[1:])
