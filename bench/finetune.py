"""Times LoRA with `openelm finetune` and with `mlx_lm.lora`: the same model, rows, initial adapter
and BLAS.

    finetune.py OPENELM MODEL TOKENIZER TEXT LIBMLXC

MODEL is a float32 checkpoint folder with the 270M's dimensions, TOKENIZER a tokenizer.json, TEXT a
JSONL file of {"text"} rows with more than 129 tokens each. Rank 8 on all linear layers of all 16
layers, batches of 4 rows of 128 targets, Adam; the first two steps are not counted. The tools run
alternately, RUNS times (2), for STEPS steps (8); memory is the peak resident size of the process.
Also measures openelm with --grad-checkpoint, and both tools with 512 targets per row.
"""

import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

# Bytes per unit of getrusage's peak resident size.
RESIDENT_UNIT = 1 if sys.platform == "darwin" else 1024
STEPS, RUNS = int(os.environ.get("STEPS", 8)), int(os.environ.get("RUNS", 2))


def run(command, environment=None):
    """Returns the output and the peak resident size in bytes."""
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | (environment or {})
        )
        _, status, usage = os.wait4(child.pid, 0)
        output.seek(0)
        text = output.read()
    if status != 0:
        sys.exit(f"{command[0]} failed:\n{text[-2000:]}")
    return text, usage.ru_maxrss * RESIDENT_UNIT


def ours(openelm, model, data, folder, length, *more):
    adapters = folder / "ours"
    shutil.rmtree(adapters, ignore_errors=True)
    text, memory = run(
        [openelm, "finetune", "--model", model, "--data", data, "--adapter-path", adapters]
        + ["--iters", str(STEPS), "--num-layers", "-1", "--max-seq-length", str(length + 1)]
        + ["--mlx-lm-compat", "--val-batches", "1", "--save-every", "1000", "--json", *more]
    )
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    steps = [event for event in events if event["event"] == "step"][2:]
    seconds = [step["targets"] / step["tokens_per_second"] for step in steps]
    return sum(step["targets"] for step in steps) / sum(seconds), memory, steps[-1]["train_loss"]


def theirs(model, data, folder, length, libmlxc):
    adapters = folder / "theirs"
    shutil.rmtree(adapters, ignore_errors=True)
    text, memory = run(
        [sys.executable, "-m", "mlx_lm", "lora", "--train", "--model", model, "--data", data]
        + ["--adapter-path", adapters, "--iters", str(STEPS), "--num-layers", "-1"]
        + ["--max-seq-length", str(length + 1), "--val-batches", "1", "--steps-per-report", "1"],
        {"LD_PRELOAD": libmlxc, "HF_HUB_OFFLINE": "1", "COLUMNS": "200"},
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", text)
    # Iteration, training loss with an arrow, tokens per second, tokens so far.
    lines = re.findall(r"^\s*\d+\s+[\d.]+ \S?\s+([\d,]+)\s+[\d.]+k\s*$", plain, re.MULTILINE)
    speeds = [float(speed.replace(",", "")) for speed in lines]
    if len(speeds) < 3:
        sys.exit(f"mlx_lm.lora printed no speeds:\n{text[-3000:]}")
    return len(speeds[2:]) / sum(1 / speed for speed in speeds[2:]), memory, None


def main(openelm, model, tokenizer, text, libmlxc):
    folder = Path(tempfile.mkdtemp(prefix="openelm-bench-"))
    data = folder / "data"
    data.mkdir()
    rows = Path(text).read_text().splitlines()
    for name, part in (("train", rows[:16]), ("valid", rows[16:20])):
        (data / f"{name}.jsonl").write_text("\n".join(part) + "\n")
    if Path(tokenizer).parent.resolve() != Path(model).resolve():
        shutil.copy(tokenizer, Path(model) / "tokenizer.json")
    results = {"ours": [], "mlx_lm": [], "512": [], "512 checkpointed": []}
    for _ in range(RUNS):
        results["mlx_lm"].append(theirs(model, data, folder, 128, libmlxc))
        results["ours"].append(ours(openelm, model, data, folder, 128))
    if os.environ.get("LONG", "1") == "1":
        results["512"].append(ours(openelm, model, data, folder, 512, "--batch-size", "1"))
        more = ("--batch-size", "1", "--grad-checkpoint")
        results["512 checkpointed"].append(ours(openelm, model, data, folder, 512, *more))
    shutil.rmtree(folder)
    table = {}
    for name, runs in results.items():
        if runs:
            table[name] = {
                "tokens_per_second": [round(run[0], 2) for run in runs],
                "peak_resident_bytes": [run[1] for run in runs],
            }
    middle = lambda name, key: statistics.median(table[name][key])
    table["ratio"] = {
        "tokens_per_second": round(
            middle("ours", "tokens_per_second") / middle("mlx_lm", "tokens_per_second"), 3
        ),
        "peak_memory": round(
            middle("ours", "peak_resident_bytes") / middle("mlx_lm", "peak_resident_bytes"), 3
        ),
    }
    if "512" in table:
        table["ratio"]["checkpointed_memory"] = round(
            middle("512 checkpointed", "peak_resident_bytes") / middle("512", "peak_resident_bytes"), 3
        )
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    main(*sys.argv[1:])
