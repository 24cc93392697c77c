"""Measures `openelm convert` and `mlx_lm.convert` in turn, A B A B: 270M in bfloat16 to 4 bits.

Prints the table, writes it into bench/README.md, and all the numbers into bench/convert.json.
bench/README.md says what the numbers mean. Needs `make build` and parity/setup.sh.

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
# Command and environment of each side, in the order in which they take turns.
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
    """Reads the source once, so that every side finds it in the page cache."""
    with (SOURCE / "model.safetensors").open("rb") as file:
        while file.read(1 << 24):
            pass


def convert(command, environment):
    """Wall seconds and peak resident bytes of one conversion, and the size of what it wrote."""
    shutil.rmtree(TARGET, ignore_errors=True)
    started = time.perf_counter()
    _, _, resident = run(command, environment)
    seconds = time.perf_counter() - started
    written = (TARGET / "model.safetensors").stat().st_size
    shutil.rmtree(TARGET)
    return {"seconds": seconds, "peak_resident_bytes": resident}, written


def measure(rounds):
    """Every number of every round, by name."""
    results = {name: [] for name in SIDES}
    sizes = set()
    warm_up()
    for i in range(rounds):
        for name, (command, environment) in SIDES.items():
            say(f"conversion, round {i + 1} of {rounds}: {name.replace('_', ' ')}")
            numbers, written = convert(command, environment)
            results[name].append(numbers)
            sizes.add(written)
    # The headers may differ by a few hundred bytes; other tensors would by far more.
    if max(sizes) - min(sizes) > 1e-4 * max(sizes):
        sys.exit(f"bench: the sides wrote models of {sorted(sizes)} bytes")
    output, _, _ = run([sys.executable, "-c", VERSIONS], ENVIRONMENT)
    source = (SOURCE / "model.safetensors").stat().st_size
    sizes = {"source_bytes": source, "target_bytes": max(sizes)}
    return results | sizes | {"versions": json.loads(output)}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds to take medians of [3]")
    parser.add_argument("--quick", action="store_true", help="one round: to try the tooling out")
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
