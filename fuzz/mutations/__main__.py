"""Runs `openelm` on mutated files and extreme options, and checks how it ends.

    python3 fuzz/mutations [--openelm PATH] [--seed N] [--cases FILES,OPTIONS] [--only WORD]
    python3 fuzz/mutations --seed N --repeat file:17

Each case is a folder with a small valid input, one mutation of it, and a command that reads it. A
command must end within 10 seconds of CPU time and 1 GB of memory, with exit code 0, 1 or 2 and
without a panic. A failed command must leave no output, and print a short message that names the
file or the option. `--only` takes `file`, `option`, `valid` (every reader's input as it is), or a
part of a reader's name, such as `tokenizer.json` or `by convert`. The exit code is 1 if there is a
violation.
"""

import argparse
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from pathlib import Path

import checks
import inputs
import process
from cases import Files, Options
from report import Report

ROOT = Path(__file__).resolve().parent.parent.parent
FULL = "10000,1500"
KINDS = ("valid", "file", "option")
# Cases for each reader from which its valid input is run too.
VALID_FROM = 10


def main():
    sys.stdout.reconfigure(errors="backslashreplace", line_buffering=True)
    given = arguments()
    seed = given.seed if given.seed is not None else random.randrange(1 << 32)
    print(f"mutations: {given.openelm}, --seed {seed}")
    work = Path(tempfile.mkdtemp(prefix="openelm-mutations-"))
    try:
        base = work / "base"
        base.mkdir()
        inputs.make(given.openelm, base)
        if given.repeat:
            return repeat(given, seed, base)
        return run(given, seed, base, work)
    finally:
        if not given.repeat:
            shutil.rmtree(work, ignore_errors=True)


def arguments():
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--openelm", help="the tool (default: target/release or target/debug)")
    parser.add_argument("--seed", type=int, help="seed of all cases (default: a new one)")
    parser.add_argument("--cases", default=FULL, metavar="FILES,OPTIONS",
                        help=f"numbers of file cases and option cases (default: {FULL})")
    parser.add_argument("--only", metavar="WORD", help="kind of the cases, or a part of a reader's name")
    parser.add_argument("--repeat", metavar="CASE", help="run this case again, and keep its folder")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1,
                        help="cases at the same time (default: the cores)")
    parser.add_argument("--seconds", type=float, help="start no case after this time")
    given = parser.parse_args()
    given.openelm = str(Path(given.openelm or newest()).resolve())
    return given


def newest():
    found = [path for path in (ROOT / "target/release/openelm", ROOT / "target/debug/openelm")
             if path.exists()]
    if not found:
        sys.exit("mutations: build the tool first, or name it with --openelm")
    return max(found, key=lambda path: path.stat().st_mtime)


def makers(given, seed, base):
    """The kinds of cases with their numbers."""
    files, _, options = given.cases.partition(",")
    only = None if given.only in KINDS else given.only
    made = {"file": Files(base, seed, only), "option": Options(base, seed, given.openelm, only)}
    made["valid"] = made["file"]
    readers, counts = len(made["file"].readers), dict.fromkeys(KINDS, 0)
    if readers and given.only != "option":
        counts["file"] = int(files)
        counts["valid"] = readers if int(files) >= VALID_FROM * readers or given.only == "valid" else 0
    if made["option"].commands and given.only not in ("file", "valid"):
        counts["option"] = int(options or 0)
    if given.only == "valid":
        counts["file"] = 0
    if not any(counts.values()):
        sys.exit(f"mutations: no case for --only {given.only}")
    return made, counts


def attempt(openelm, kind, maker, number, folder):
    """Makes and runs a case: the case, its result and its violations."""
    case = maker.valid(number, folder) if kind == "valid" else maker.make(number, folder)
    before = checks.listing(folder)
    streams = f"{folder}.streams"
    result = process.run([openelm, *case.command], folder, streams, case.stdin,
                         interrupt=case.long)
    return case, result, list(checks.problems(case, result, before, checks.listing(folder)))


def run(given, seed, base, work):
    made, counts = makers(given, seed, base)
    # All kinds progress alike, so that a limit of time ends none.
    numbers = sorted(((kind, number) for kind, count in counts.items() for number in range(count)),
                     key=lambda item: (item[1] + 0.5) / counts[item[0]])
    report, lock, failures, began = Report(), threading.Lock(), [], time.monotonic()

    def worker():
        while True:
            with lock:
                late = given.seconds and time.monotonic() - began > given.seconds
                if not numbers or late:
                    return
                kind, number = numbers.pop(0)
            folder = work / f"{kind}-{number}"
            try:
                outcome = attempt(given.openelm, kind, made[kind], number, folder)
            except Exception as error:
                failures.append((f"{kind}:{number}", error))
                continue
            finally:
                remove(folder)
            with lock:
                for line in report.add(*outcome):
                    print(line)
                done = sum(report.cases.values())
                if done % 1000 == 0:
                    print(f"{done} cases, {report.broken} with a violation, "
                          f"{time.monotonic() - began:.0f} s")

    threads = [threading.Thread(target=worker, daemon=True) for _ in range(max(1, given.workers))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print("", *report.lines(), sep="\n")
    if numbers:
        print(f"{len(numbers)} cases were not run")
    for identity, error in failures:
        print(f"mutations: {identity}: the harness failed: {error!r}")
    if not report.passed():
        only = f" --only '{given.only}'" if given.only else ""
        print(f"repeat a case: python3 fuzz/mutations --openelm {given.openelm} --seed {seed}{only} "
              f"--repeat CASE")
    return 0 if report.passed() and not failures else 1


def remove(folder):
    shutil.rmtree(folder, ignore_errors=True)
    for end in "out", "err":
        Path(f"{folder}.streams.{end}").unlink(missing_ok=True)


def repeat(given, seed, base):
    kind, _, number = given.repeat.partition(":")
    made, _ = makers(given, seed, base)
    folder = base.parent / f"{kind}-{number}"
    case, result, found = attempt(given.openelm, kind, made[kind], int(number), folder)
    print(f"{case.group}: {case.what}")
    print(process.shell([given.openelm, *case.command], folder, case.stdin))
    sys.stdout.write(result.stderr.decode("utf-8", "backslashreplace").replace("\x1b", "\\x1b"))
    print(f"exit code {result.code}, signal {result.signal}, {result.stopped or 'not stopped'}; "
          f"{result.wall:.1f} s, {result.cpu:.1f} s of CPU time, {result.memory >> 20} MB")
    if result.code in (1, 2):
        print(f"names {' or '.join(case.names)}: {'yes' if checks.named(case, result) else 'no'}")
    for check, what in found:
        print(f"violation: {check}: {what}")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
