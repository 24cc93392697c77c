"""Measures batches, speculation and structured output, each beside what it replaces, in turn.

Prints the table, writes it to bench/README.md, and writes all numbers to bench/decoding.json.
Needs `make build` and parity/setup.sh.

    decoding.py [--rounds N] [--quick]
"""

import argparse
import datetime
import json
import sys
from statistics import median

import inference
import report
from inference import ENVIRONMENT, MODEL, OPENELM, ROOT, SAME_BLAS, run, say

TALES = ROOT / "examples/tales"
SEQUENCES, PROMPT_TOKENS = 8, 32
STORY = "Tom had a red ball. He liked to play with the red ball in the park. "
REPEATING = STORY * 4 + "Tom had a"
OTHER = "Once upon a time there was a"
# Characters that any text can go on with, so that the mask never ends the text.
REGEX = "[ -~]{4000}"

# Prints the decoded tokens a second of mlx-lm's batches.
BATCH = """
import os, sys
os.environ.pop("LD_PRELOAD", None)
from pathlib import Path
from mlx_lm.generate import BatchGenerator
from mlx_lm.utils import load_model
model, config = load_model(Path(sys.argv[1]))
sequences, length, tokens = map(int, sys.argv[2:])
prompt = [i * 7919 % config["vocab_size"] for i in range(length)]
def rate():
    generator = BatchGenerator(model, stop_tokens=[])
    generator.insert([prompt] * sequences, [tokens] * sequences)
    with generator.stats() as stats:
        while generator.next_generated():
            pass
    generator.close()
    return stats.generation_tps
rate()
print(rate())
"""


def openelm_batch(sequences, tokens):
    command = [OPENELM, "bench", "--model", MODEL, "--dtype", "float32", "--repeat", 1, "--json"]
    command += ["--prompt-tokens", PROMPT_TOKENS, "-n", tokens, "--batch-size", sequences]
    output, _, _ = run(command, ENVIRONMENT)
    return json.loads(output)["runs"][0]["decode_tokens_per_second"]


def mlx_lm_batch(sequences, tokens):
    command = [sys.executable, "-c", BATCH, MODEL, sequences, PROMPT_TOKENS, tokens]
    output, _, _ = run(command, SAME_BLAS)
    return float(output)


def generated(model, prompt, tokens, *options):
    """Decoded tokens a second, and the text's statistics."""
    command = [OPENELM, "generate", "--model", model, "--dtype", "float32", "-p", prompt]
    command += ["-n", tokens, "--json", "--quiet", *options]
    output, _, _ = run(command, ENVIRONMENT)
    return json.loads(output.splitlines()[-1])


def pair(rounds, first, second):
    """Both rates of each round; the order changes from round to round."""
    rates = []
    for index in range(rounds):
        if index % 2:
            b, a = second(), first()
        else:
            a, b = first(), second()
        rates.append([a, b])
    return rates


def measure(rounds, quick):
    tokens, long = (8, 32) if quick else (64, 400)
    results = {"rounds": rounds}
    say("batches of 8 and of 1")
    batch = lambda sequences: lambda: openelm_batch(sequences, tokens)
    results["batch"] = pair(rounds, batch(SEQUENCES), batch(1))
    say("batches of openelm and of mlx-lm")
    theirs = lambda: mlx_lm_batch(SEQUENCES, tokens)
    results["mlx_lm_batch"] = pair(rounds, batch(SEQUENCES), theirs)
    rate = lambda stats: stats["decode_tokens_per_second"]
    for name, prompt in (("repeating", REPEATING), ("other", OTHER)):
        say(f"prompt lookup, {name} text")
        lookup, plain = (
            lambda *options, prompt=prompt: rate(
                generated(TALES, prompt, long, "--ignore-eos", *options)
            )
            for _ in range(2)
        )
        rates = pair(2 * rounds + 1, lambda: lookup("--prompt-lookup", 8), plain)
        results[f"lookup_{name}"] = rates
        stats = generated(TALES, prompt, long, "--ignore-eos", "--prompt-lookup", 8)
        results[f"lookup_{name}_accepted"] = [stats["accepted_tokens"], stats["drafted_tokens"]]
    say("structured output")
    constrained = lambda *options: rate(generated(MODEL, OTHER, tokens, *options))
    results["mask"] = pair(
        rounds + 2, lambda: constrained("--regex", REGEX), lambda: constrained("--ignore-eos")
    )
    return results


def table(results):
    lines = ["| | first | second | ratio | target | |", "|---|---|---|---|---|---|"]
    for key, what, target in (
        ("batch", "decode, 270M, 8 sequences and 1", 3),
        ("mlx_lm_batch", "decode, 270M, 8 sequences, openelm and mlx-lm, same BLAS", 1.1),
        ("lookup_repeating", "tales, text that repeats its prompt, with and without lookup", 1.5),
        ("lookup_other", "tales, another text, with and without lookup", 0.95),
        ("mask", "decode, 270M, 32,000 pieces, with a regular expression and without", 0.95),
    ):
        rates = results[key]
        ratio = median(a / b for a, b in rates)
        a, b = (median(column) for column in zip(*rates))
        cells = [what, report.rate(a), report.rate(b), f"{ratio:.2f}", f"at least {target:g}"]
        lines.append("| " + " | ".join([*cells, report.verdict(ratio, target)]) + " |")
    return lines


def markdown(results, version):
    head = (
        f"Measured on {datetime.date.today().isoformat()}: {report.machine()}; {version};"
        f" {results['rounds']} interleaved rounds or more, the ratio is the median of the rounds'"
        " ratios."
    )
    accepted = "; ".join(
        "{} of {} drafts accepted in the {} text".format(*results[f"lookup_{name}_accepted"], name)
        for name in ("repeating", "other")
    )
    return "\n".join([head, "", *table(results), "", f"{accepted[0].upper()}{accepted[1:]}."])


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3, help="rounds for the medians [3]")
    parser.add_argument("--quick", action="store_true", help="few tokens, to test the scripts")
    arguments = parser.parse_args()
    inference.make_checkpoint()
    results = measure(arguments.rounds, arguments.quick)
    version, _, _ = run([OPENELM, "--version"], ENVIRONMENT)
    text = markdown(results, version.decode().strip())
    print(text)
    if not arguments.quick:
        report.write(text, results, "decoding")


if __name__ == "__main__":
    main()
