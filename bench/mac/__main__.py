"""`make mac`: builds, tests and measures on a Mac, and writes out/mac/report.txt and report.json.

    [MAC_STEPS="build speed"] [MODEL=FOLDER] [MAC_ROUNDS=3] python3 -B bench/mac

A failed step does not stop the others; the exit code is then 1. The report is written again after
each step. MODEL, examples/tales by default, is the model of the speed and training steps, and
OPENELM the tool that they measure, target/release/openelm by default. On other systems than macOS
everything runs too, and the report's first line says that it is no measurement of a Mac.
"""

import os
import shutil
import signal
import sys
import time
from pathlib import Path

import facts
import measure
import processes
import report

ROOT = Path(__file__).resolve().parent.parent.parent
OUT = ROOT / "out/mac"
# Targets of the Makefile, then measurements.
TARGETS = ("build", "test-scripts", "test-rust", "test-mutations", "test-swift", "parity")
MEASUREMENTS = {"speed": measure.speed, "training": measure.training}
STEPS = (*TARGETS, *MEASUREMENTS)


def say(text):
    print(f"mac: {text}", file=sys.stderr, flush=True)


def chosen(words):
    """The steps named in a text, in their order; all if it names none."""
    names = words.split()
    unknown = [name for name in names if name not in STEPS]
    if unknown:
        sys.exit(f"mac: MAC_STEPS: expected names of {' '.join(STEPS)}, found {unknown[0]}")
    return [name for name in STEPS if name in names or not names]


def run_step(name, log, settings):
    """The status of a step, and its measurements or None."""
    if name in MEASUREMENTS:
        found, problems = MEASUREMENTS[name](settings, log)
        for problem in problems:
            log.write(f"failed: {problem}\n".encode())
        return "failed" if problems else "passed", found
    # A make of its own, without the options and the jobs of the make that started this program.
    status = processes.run(["make", name], log, {"MAKEFLAGS": "", "MAKELEVEL": ""})
    return "failed" if status else "passed", None


def run_steps(names, results, settings, write=lambda: None):
    """Runs the steps, and keeps their results in `results["steps"]`."""
    for name in names:
        say(f"{name} (output: out/mac/{name}.log)")
        started = time.monotonic()
        path = settings["out"] / f"{name}.log"
        step = {"name": name, "status": "interrupted", "seconds": 0.0, "log_tail": []}
        results["steps"].append(step)
        try:
            with open(path, "wb", buffering=0) as log:
                try:
                    step["status"], found = run_step(name, log, settings)
                    if found is not None:
                        results[name] = found
                except Exception as error:  # An unexpected answer of a tool is a failed step too.
                    log.write(f"failed: {type(error).__name__}: {error}\n".encode())
                    step["status"] = "failed"
        finally:
            step["seconds"] = round(time.monotonic() - started, 1)
            step["log_tail"] = report.tail(path.read_text(errors="replace"))
            write()
        say(f"{name}: {step['status']} after {step['seconds']:.0f} s")
        if step["status"] == "failed":
            print("\n".join(step["log_tail"][-10:]), file=sys.stderr, flush=True)


def main():
    os.chdir(ROOT)
    names = chosen(os.environ.get("MAC_STEPS", ""))
    rounds = os.environ.get("MAC_ROUNDS", "3")
    if not rounds.isdecimal() or int(rounds) == 0:
        sys.exit(f"mac: MAC_ROUNDS: expected a positive number, found {rounds}")
    settings = {
        "root": ROOT,
        "out": OUT,
        "rounds": int(rounds),
        "model": Path(os.environ.get("MODEL") or "examples/tales").expanduser(),
        "openelm": Path(os.environ.get("OPENELM") or "target/release/openelm").resolve(),
    }
    if not (settings["model"] / "config.json").exists():
        sys.exit(f"mac: MODEL: {settings['model']}/config.json is missing")
    shutil.rmtree(OUT, ignore_errors=True)
    OUT.mkdir(parents=True)
    results = {"system": facts.collect(ROOT), "steps": []}

    def write():
        (OUT / "report.json").write_text(report.as_json(results))
        (OUT / "report.txt").write_text(report.as_text(results, names))

    write()
    # As Ctrl-C: the running program is in a process group of its own and must end too.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        run_steps(names, results, settings, write)
    except KeyboardInterrupt:
        sys.exit("mac: interrupted; out/mac/report.txt has the steps until then")
    failed = [step["name"] for step in results["steps"] if step["status"] != "passed"]
    say(f"out/mac/report.txt and report.json; failed: {', '.join(failed) or 'nothing'}")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
