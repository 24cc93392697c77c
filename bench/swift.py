"""Measures decoding through Swift and in the Rust core in alternation, and writes the result to
bench/README.md.

The Rust side is `openelm generate`, measured by the core; the Swift side is swift/Benchmarks,
measured in Swift, both as release builds. Both continue the same prompt greedily in float32 for the
same number of tokens. Needs `make build` and a Swift toolchain; bench/run.sh builds the rest.

    swift.py [--rounds N] [--quick]
"""

import argparse
import datetime
import json
import os
import sys
from statistics import median

import report
from inference import ENVIRONMENT, MODEL, OPENELM, PROMPT, ROOT, make_checkpoint, run, say

SWIFT = ROOT / ".build/bench/release/openelm-swift-bench"
TALES = ROOT / "examples/tales"
TARGET = 0.97


def rust(model, tokens):
    command = [OPENELM, "generate", "--model", model, "--prompt", PROMPT, "-n", tokens]
    command += ["--dtype", "float32", "--ignore-eos", "--json"]
    output, _, _ = run(command, ENVIRONMENT)
    lines = [json.loads(line) for line in output.splitlines()]
    generated = sum(line["event"] == "token" for line in lines)
    last = next(line for line in lines if line["event"] == "finished")
    check(generated, tokens)
    return (generated - 1) / last["decode_seconds"]


def swift(model, tokens):
    output, _, _ = run([SWIFT, model, PROMPT, tokens], ENVIRONMENT)
    measured = json.loads(output)
    check(measured["generated_tokens"], tokens)
    return measured["decode_tokens_per_second"]


def check(generated, tokens):
    if generated != tokens:
        sys.exit(f"bench: expected {tokens} tokens, found {generated}")


def measure(rounds, quick):
    results = {}
    jobs = {"OpenELM-270M": (MODEL, 16 if quick else 128), "tales": (TALES, 64 if quick else 400)}
    for name, (model, tokens) in jobs.items():
        results[name] = {"tokens": tokens, "rust": [], "swift": []}
        for i in range(rounds):
            say(f"{name}, round {i + 1} of {rounds}: the core, then through Swift")
            results[name]["rust"].append(rust(model, tokens))
            results[name]["swift"].append(swift(model, tokens))
    return results


def markdown(results):
    rounds = len(results["tales"]["rust"])
    lines = [
        f"Measured on {datetime.date.today().isoformat()}: {report.machine()}; medians of {rounds}"
        " interleaved rounds; the ratio is the median of the rounds' ratios.",
        "",
        "| decode | Rust core | through Swift | ratio | target | |",
        "|---|---|---|---|---|---|",
    ]
    for name, target in (("OpenELM-270M", TARGET), ("tales", None)):
        a, b = results[name]["rust"], results[name]["swift"]
        # Within each round, because the machine's speed changes by more than the difference.
        ratio = median(through / core for core, through in zip(a, b))
        cells = [f"{name}, {results[name]['tokens']} tokens", report.rate(median(a)), report.rate(median(b))]
        cells += [f"{ratio:.3f}"]
        cells += [f"at least {target}", report.verdict(ratio, target)] if target else ["", ""]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="rounds for the medians [9]")
    parser.add_argument("--quick", action="store_true", help="few tokens, to test the scripts")
    arguments = parser.parse_args()
    if not os.access(SWIFT, os.X_OK):
        sys.exit(f"bench: {SWIFT} is missing; run bench/run.sh, or bench/swift.sh alone")
    make_checkpoint()
    results = measure(1 if arguments.quick else arguments.rounds, arguments.quick)
    text = markdown(results)
    print(text)
    if not arguments.quick:
        report.write(text, results, "swift")


if __name__ == "__main__":
    main()
