"""Measures `openelm convert` and `mlx_lm.convert` in alternation (A B A B): 270M in bfloat16 to 4
bits.

Prints the table, writes it to bench/README.md, and writes all numbers to bench/convert.json.
bench/README.md explains the numbers. Needs `make build` and parity/setup.sh.

    convert.py [--rounds N] [--quick]
"""

import argparse
import json
import shutil
import subprocess
import sys
import time

import report
from inference import ENVIRONMENT, OPENELM, ROOT, SAME_BLAS, WHEEL_BLAS, python, run, say

SOURCE = ROOT / "out/bench/OpenELM-270M-bfloat16"
TARGET = ROOT / "out/bench/converted"
MLX_LM = [sys.executable, "-m", "mlx_lm", "convert", "--hf-path", SOURCE, "--mlx-path", TARGET]
BOTH = ["--q-bits", 4, "--q-group-size", 64]
VERSIONS = """
import json
from importlib.metadata import version
print(json.dumps({name: version(name) for name in ("mlx", "mlx-lm")}))
"""
# Command and environment of each side, in order.
SIDES = {
    "openelm": ([OPENELM, "convert", SOURCE, TARGET, "--json", "--quantize", *BOTH], ENVIRONMENT),
    "same_blas": ([*MLX_LM, "--quantize", *BOTH], SAME_BLAS),
    "openelm_unverified": (
        [OPENELM, "convert", SOURCE, TARGET, "--json", "--quantize", *BOTH, "--verify", "none"],
        ENVIRONMENT,
    ),
    "wheel_blas": ([*MLX_LM, "--quantize", *BOTH], WHEEL_BLAS),
}


def make_checkpoint():
    if (SOURCE / "model.safetensors").exists():
        return
    say("writing a random OpenELM-270M in bfloat16 under out/bench (543 MB, once)")
    command = [str(word) for word in python("checkpoint.py", SOURCE, "bfloat16")]
    subprocess.run(command, env=ENVIRONMENT, check=True)


def warm_up():
    """Reads the source once, so that it is in the page cache for every side."""
    with (SOURCE / "model.safetensors").open("rb") as file:
        while file.read(1 << 24):
            pass


def convert(command, environment):
    """Wall-clock seconds, peak resident bytes and output size of one conversion."""
    shutil.rmtree(TARGET, ignore_errors=True)
    started = time.perf_counter()
    _, _, resident = run(command, environment)
    seconds = time.perf_counter() - started
    written = (TARGET / "model.safetensors").stat().st_size
    shutil.rmtree(TARGET)
    return {"seconds": seconds, "peak_resident_bytes": resident}, written


def measure(rounds):
    """All numbers of all rounds, by name."""
    results = {name: [] for name in SIDES}
    sizes = set()
    warm_up()
    for i in range(rounds):
        for name, (command, environment) in SIDES.items():
            say(f"conversion, round {i + 1} of {rounds}: {name.replace('_', ' ')}")
            numbers, written = convert(command, environment)
            results[name].append(numbers)
            sizes.add(written)
    # The headers may differ by a few hundred bytes; different tensors would differ by much more.
    if max(sizes) - min(sizes) > 1e-4 * max(sizes):
        sys.exit(f"bench: the sides wrote models of {sorted(sizes)} bytes")
    output, _, _ = run([sys.executable, "-c", VERSIONS], ENVIRONMENT)
    source = (SOURCE / "model.safetensors").stat().st_size
    sizes = {"source_bytes": source, "target_bytes": max(sizes)}
    return results | sizes | {"versions": json.loads(output)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds for the medians [3]")
    parser.add_argument("--quick", action="store_true", help="one round, to test the scripts")
    arguments = parser.parse_args()
    make_checkpoint()
    results = measure(1 if arguments.quick else arguments.rounds)
    version, _, _ = run([OPENELM, "--version"], ENVIRONMENT)
    text = report.conversion_markdown(results, version.decode().strip())
    print(text)
    if not arguments.quick:
        report.write(text, results, "convert")


if __name__ == "__main__":
    main()
