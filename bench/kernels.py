"""Measures `openelm` with the CPU kernels of setup/native, without them, and llama.cpp in turn, for
weights in float32, bfloat16, 8 and 4 bits and for the bundled model.

Prints the table, writes it to bench/README.md, and writes all numbers to bench/kernels.json. Needs
`make build`; llama.cpp is measured if `make parity-llama` has built it.

    kernels.py [--rounds N] [--quick]
"""

import argparse
import datetime
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

import report
from inference import ENVIRONMENT, OPENELM, ROOT, THREADS, say

LLAMA = ROOT / ".mlx/llama"
FOLDER = ROOT / "out/bench/kernels"
SOURCE = ROOT / "out/bench/OpenELM-270M-bfloat16"
# The name, the options of the conversion, the type of the GGUF file, and the prompt's length.
CASES = [
    ("270M, float32", ["--dtype", "float32"], "f32", 512),
    ("270M, bfloat16", ["--dtype", "bfloat16"], "bf16", 512),
    ("270M, 8 bits", ["--quantize", "--q-bits", "8"], "q8_0", 512),
    ("270M, 4 bits", ["--quantize", "--q-bits", "4"], "q4_0", 512),
    ("tales, bfloat16", ["--dtype", "bfloat16"], "bf16", 384),
]


def run(command, environment):
    """The JSON object that the command prints, and its peak resident bytes."""
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [str(word) for word in command], env=environment, stdout=output,
            stderr=subprocess.DEVNULL, cwd=ROOT,
        )
        _pid, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            raise SystemExit(f"bench: {command[0]} failed")
        output.seek(0)
        result = json.loads(output.read())
    return result, usage.ru_maxrss * 1024


def openelm(folder, prompt, tokens, repeat, kernels):
    environment = {**ENVIRONMENT, **({"OPENELM_KERNELS": "mlx"} if not kernels else {})}
    command = [OPENELM, "bench", "--model", folder, "--prompt-tokens", prompt, "-n", tokens,
               "--repeat", repeat, "--json"]
    result, resident = run(command, environment)
    row = result["runs"][0]
    return {
        "prefill": row["prefill_tokens_per_second"],
        "decode": row["decode_tokens_per_second"],
        "resident": resident,
    }


def llama(file, prompt, tokens, repeat):
    environment = {**ENVIRONMENT, "PYTHONPATH": str(LLAMA)}
    command = [sys.executable, ROOT / "bench/llama_job.py", file, THREADS, prompt, tokens, repeat]
    result, resident = run(command, environment)
    return {**result, "resident": resident}


def prepare(name, options, gguf, with_llama):
    """The MLX folder and the GGUF file of a case."""
    source = ROOT / "examples/tales" if name.startswith("tales") else SOURCE
    stem = name.replace(", ", "-").replace(" ", "-")
    folder, file = FOLDER / stem, FOLDER / f"{stem}.gguf"
    if not folder.exists():
        convert = [OPENELM, "convert", source, folder, *options, "--verify", "none"]
        subprocess.run(convert, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if with_llama and not file.exists():
        convert = [OPENELM, "convert", source, file, "--gguf-type", gguf, "--verify", "none"]
        subprocess.run(convert, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return folder, file


def measure(rounds, quick):
    with_llama = LLAMA.is_dir()
    if not with_llama:
        say("llama.cpp is not built (make parity-llama): it is left out")
    if not SOURCE.exists():
        checkpoint = [sys.executable, ROOT / "bench/checkpoint.py", SOURCE, "bfloat16"]
        subprocess.run(checkpoint, check=True, env=ENVIRONMENT)
    FOLDER.mkdir(parents=True, exist_ok=True)
    prepared = [(case, prepare(*case[:3], with_llama)) for case in CASES]
    results = {case[0]: {"openelm": [], "mlx": [], "llama": []} for case in CASES}
    tokens, repeat = (4, 1) if quick else (64, 2)
    for number in range(rounds):
        for (name, _, _, prompt), (folder, file) in prepared:
            say(f"round {number + 1} of {rounds}: {name}")
            of_case = results[name]
            of_case["openelm"].append(openelm(folder, prompt, tokens, repeat, True))
            of_case["mlx"].append(openelm(folder, prompt, tokens, repeat, False))
            if with_llama:
                of_case["llama"].append(llama(file, prompt, tokens, repeat))
    return results


def markdown(results, version):
    lines = [
        f"Measured on {datetime.date.today().isoformat()}: {report.machine()}; {version}, {THREADS}"
        f" threads; medians of {len(next(iter(results.values()))['mlx'])} interleaved rounds. MLX:"
        " the same program with `OPENELM_KERNELS=mlx`.",
        "",
        "| | openelm | MLX | llama.cpp | over MLX | over llama.cpp |",
        "|---|---|---|---|---|---|",
    ]
    units = [("prefill", "prefill", 1, "tokens/s"), ("decode", "decode", 1, "tokens/s"),
             ("resident", "peak memory", 2**20, "MiB")]
    for name, jobs in results.items():
        for key, what, unit, text in units:
            own, mlx, other = (
                median(job[key] for job in jobs[side]) / unit if jobs[side] else None
                for side in ("openelm", "mlx", "llama")
            )
            cells = [f"{name}: {what}", f"{own:.0f} {text}", f"{mlx:.0f}",
                     f"{other:.0f}" if other else "", f"{own / mlx:.2f}",
                     f"{own / other:.2f}" if other else ""]
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds for the medians [3]")
    parser.add_argument("--quick", action="store_true", help="few tokens, to test the scripts")
    arguments = parser.parse_args()
    results = measure(arguments.rounds, arguments.quick)
    version = subprocess.run([OPENELM, "--version"], capture_output=True, text=True, check=True)
    text = markdown(results, version.stdout.strip())
    print(text)
    if not arguments.quick:
        report.write(text, results, "kernels")


if __name__ == "__main__":
    main()
