"""Counts the kernel launches of one step of openelm and of mlx-lm, from the graphs that they
evaluate.

    launches.py [PROGRAM]

PROGRAM is the example of bench/launches/main.rs, by default target/debug/examples/launches. Both
run on MLX's CPU backend, openelm with the code that it chooses for a GPU. The preloaded
bench/launches/counter.cpp counts the nodes, and fused.cpp makes a norm, a rotary embedding and
attention one node each, as on a GPU. A step is the difference between a run of three steps and one
of four. Nodes that launch nothing on a GPU, because they only view their argument, are not counted.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import report

FOLDER = Path(__file__).resolve().parent
ROOT = FOLDER.parent
MLX = ROOT / ".mlx"
MODEL = ROOT / "examples/tales"
VIEWS = {
    "AsStrided", "Broadcast", "BroadcastAxes", "Copy", "ExpandDims", "Flatten", "NumberOfElements",
    "Reshape", "Slice", "Split", "Squeeze", "StopGradient", "Transpose", "Unflatten", "View",
}  # fmt: skip
QUANTIZED = "decode_4bit"
KINDS = {
    "decode": ("one token of a decode, dense", 0.87),
    QUANTIZED: ("one token of a decode, 4 bits", 0.87),
    "lora": ("LoRA", 1.0),
    "dora": ("DoRA", 1.0),
    "full": ("full fine-tuning", 1.0),
    "pretrain": ("pre-training", 1.0),
}


def build(folder, name, *options):
    """The counter for a process whose MLX is linked with `options`."""
    library = folder / f"{name}.so"
    subprocess.run(
        ["c++", "-std=c++20", "-O1", "-shared", "-fPIC", f"-I{MLX / 'prefix/mlx/include'}"]
        + [FOLDER / f"launches/{part}.cpp" for part in ("counter", "fused")]
        + ["-o", library, "-ldl", *options],
        check=True,
    )
    return library


def quantize(target, environment):
    """The model with all matrices in 4 bits."""
    command = [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", MODEL, "--mlx-path", target]
    options = ["-q", "--q-bits", "4", "--q-group-size", "32"]
    run = subprocess.run(
        [*command, *options], env=os.environ | environment, capture_output=True, text=True
    )
    if run.returncode != 0:
        sys.exit(f"mlx_lm convert failed:\n{run.stderr[-3000:]}")
    return target


def nodes(command, library, folder, environment):
    """The nodes of one step, by their primitive."""
    counts = []
    for steps in (3, 4):
        output = folder / "nodes.json"
        extra = {"LD_PRELOAD": str(library), "LAUNCHES_OUT": str(output), **environment}
        run = subprocess.run(
            [*command, str(steps)], env=os.environ | extra, capture_output=True, text=True
        )
        if run.returncode != 0:
            sys.exit(f"{command[0]} failed:\n{run.stderr[-3000:]}")
        counts.append(json.loads(output.read_text()))
    before, after = counts
    step = {name: count - before.get(name, 0) for name, count in after.items()}
    return {name: count for name, count in sorted(step.items()) if count != 0}


def launches(step):
    return sum(count for name, count in step.items() if name not in VIEWS)


def table(results):
    lines = ["| step | openelm | mlx-lm | ratio | target | |", "|---|---|---|---|---|---|"]
    for kind, (what, target) in KINDS.items():
        ours, theirs = (launches(results[kind][side]) for side in ("openelm", "mlx_lm"))
        met = report.verdict(ours / theirs, target, at_most=True)
        lines.append(
            f"| {what} | {ours} | {theirs} | {ours / theirs:.2f} | at most {target:g} | {met} |"
        )
    return "\n".join(lines)


def main(program):
    oracle = str(MLX / "oracle")
    python = {"PYTHONPATH": oracle, "PYTHONDONTWRITEBYTECODE": "1", "HF_HUB_OFFLINE": "1"}
    results = {}
    with tempfile.TemporaryDirectory(prefix="openelm-launches-") as name:
        folder = Path(name)
        ours = build(folder, "ours")
        library = f"{oracle}/mlx/lib"
        theirs = build(folder, "theirs", f"-L{library}", "-lmlx", f"-Wl,-rpath,{library}")
        script = [sys.executable, FOLDER / "launches/mlx_lm_steps.py"]
        quantized = quantize(folder / "quantized", python)
        for kind in KINDS:
            job = ["decode", quantized] if kind == QUANTIZED else [kind, MODEL]
            results[kind] = {
                "openelm": nodes([program, *job], ours, folder, {}),
                "mlx_lm": nodes([*script, *job], theirs, folder, python),
            }
    text = table(results)
    print(text)
    report.write(text, results, "launches")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else ROOT / "target/debug/examples/launches")
