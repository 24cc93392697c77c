"""Measures `openelm` and mlx-lm in alternation (A B A B), so that changes of the machine's speed
affect both.

Prints the table, writes it to bench/README.md, and writes all numbers to bench/inference.json.
bench/README.md explains the numbers. Needs `make build` and parity/setup.sh.

    inference.py [--rounds N] [--quick]
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import report

ROOT = Path(__file__).resolve().parent.parent
OPENELM = ROOT / "target/release/openelm"
BLAS = ROOT / ".mlx/lib/libmlxc.so"
MODEL = ROOT / "out/bench/OpenELM-270M"
THREADS = 2
PROMPT = "Once upon a time there was"

ENVIRONMENT = {
    **os.environ,
    "OPENBLAS_NUM_THREADS": str(THREADS),
    "PYTHONPATH": str(ROOT / ".mlx/oracle"),
    "PYTHONDONTWRITEBYTECODE": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_VERBOSITY": "error",
}
# mlx-lm with openelm's BLAS: its `cblas_sgemm` comes first in the search order.
SAME_BLAS = {**ENVIRONMENT, "LD_PRELOAD": str(BLAS)}
# mlx-lm as installed by pip, with the reference BLAS in MLX's wheel.
WHEEL_BLAS = ENVIRONMENT


def say(text):
    print(f"bench: {text}", file=sys.stderr, flush=True)


def run(command, environment, heading=b""):
    """Output, seconds from the start to the first byte after the heading, peak resident bytes."""
    command = [str(word) for word in command]
    with tempfile.TemporaryFile() as errors:
        started = time.perf_counter()
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=errors, cwd=ROOT
        )
        with process.stdout as stdout:
            output = b""
            while len(output) <= len(heading) and (more := os.read(stdout.fileno(), 4096)):
                output += more
            first_byte = time.perf_counter() - started
            output += stdout.read()
        _pid, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0 or not output.startswith(heading) or output == heading:
            errors.seek(0)
            trace = errors.read().decode(errors="replace")
            sys.exit(f"bench: {' '.join(command)}\nexited with {process.returncode}:\n{trace}")
    return output, first_byte, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def python(script, *arguments):
    return [sys.executable, ROOT / "bench" / script, *arguments]


def make_checkpoint():
    if (MODEL / "model.safetensors").exists():
        return
    say("writing a random OpenELM-270M under out/bench (1.1 GB, once)")
    subprocess.run([str(word) for word in python("checkpoint.py", MODEL)], env=ENVIRONMENT, check=True)


def openelm_job(lengths, tokens, repeat):
    """`openelm bench`'s report, with "peak_resident_bytes"."""
    lengths = ",".join(map(str, lengths))
    command = [OPENELM, "bench", "--model", MODEL, "--dtype", "float32", "--prompt-tokens", lengths]
    command += ["-n", tokens, "--repeat", repeat, "--json"]
    output, _, resident = run(command, ENVIRONMENT)
    return {**json.loads(output), "peak_resident_bytes": resident}


def mlx_lm_job(environment, lengths, tokens, repeat, warm_up=0):
    lengths = ",".join(map(str, lengths))
    command = python("mlx_lm_job.py", MODEL, lengths, tokens, repeat, warm_up)
    output, _, resident = run(command, environment)
    return {**json.loads(output), "peak_resident_bytes": resident}


def openelm_first_token():
    command = [OPENELM, "generate", "--model", MODEL, "--prompt", PROMPT, "-n", 1]
    return run(command, ENVIRONMENT)[1]


def mlx_lm_first_token(environment):
    command = [sys.executable, "-m", "mlx_lm", "generate", "--model", MODEL]
    command += ["--prompt", PROMPT, "--max-tokens", 1]
    # Waits for the token, not for the line that mlx-lm prints before it starts.
    return run(command, {**environment, "PYTHONUNBUFFERED": "1"}, b"=" * 10 + b"\n")[1]


def measure(rounds, quick):
    """All numbers of all rounds, by name."""
    tokens, repeat = (16, 1) if quick else (64, 2)
    results = {name: [] for name in ("roofline", "openelm", "same_blas", "wheel_blas")}
    for i in range(rounds):
        say(f"round {i + 1} of {rounds}: openelm")
        results["openelm"].append(openelm_job([128, 512], tokens, repeat))
        say(f"round {i + 1} of {rounds}: mlx-lm with the same BLAS")
        results["same_blas"].append(mlx_lm_job(SAME_BLAS, [128, 512], tokens, repeat))
        say(f"round {i + 1} of {rounds}: mlx-lm with its wheel's BLAS")
        results["wheel_blas"].append(mlx_lm_job(WHEEL_BLAS, [128], 8 if quick else 16, 1, warm_up=8))
        say(f"round {i + 1} of {rounds}: roofline")
        output, _, _ = run(python("roofline.py", BLAS, MODEL / "model.safetensors"), ENVIRONMENT)
        results["roofline"].append(json.loads(output))

    first_token = {name: [] for name in ("openelm", "same_blas", "wheel_blas")}
    for i in range(rounds + 2):
        say(f"first token, round {i + 1} of {rounds + 2}")
        first_token["openelm"].append(openelm_first_token())
        first_token["same_blas"].append(mlx_lm_first_token(SAME_BLAS))
        first_token["wheel_blas"].append(mlx_lm_first_token(WHEEL_BLAS))
    results["first_token_seconds"] = first_token

    say("position 2,000 against position 100")
    # 120 tokens around each position.
    results["position"] = [
        openelm_job(report.POSITIONS, 16 if quick else 120, 1) for _ in range(1 if quick else 5)
    ]
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds for the medians [3]")
    parser.add_argument("--quick", action="store_true", help="few tokens, to test the scripts")
    arguments = parser.parse_args()
    make_checkpoint()
    started = time.monotonic()
    results = measure(arguments.rounds, arguments.quick)
    say(f"measured for {time.monotonic() - started:.0f} s")
    version, _, _ = run([OPENELM, "--version"], ENVIRONMENT)
    text = report.markdown(results, version.decode().strip(), THREADS)
    print(text)
    if not arguments.quick:
        report.write(text, results, "inference")


if __name__ == "__main__":
    main()
