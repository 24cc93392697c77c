"""Writes FOLDER/cases.json: mlx-lm's logits processors and filters on random logits.

    LD_PRELOAD=.mlx/lib/libmlxc.so PYTHONPATH=.mlx/oracle \\
      python3 parity/samplers.py FOLDER [V [SEEDS]]

Each case has openelm-core's options, the tokens so far, and the logits `[V]` (log-probabilities, so
that filters keep their values) before and after; excluded tokens are null. The temperature of
filters is 1. XTC has the probability 1, because its draw is not part of a case.
openelm-core/tests/samplers.rs compares them; its fixture is `parity/samplers.py
openelm-core/tests/fixtures/samplers 24 3`.
"""

import json
import math
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm import sample_utils

END = 2

# Options of make_logits_processors; the names are openelm-core's, too.
PROCESSORS = [
    {"logit_bias": {"1": 2.5, "7": -3.25, "9": -math.inf}},
    {"repetition_penalty": 1.3, "repetition_context_size": 20},
    {"repetition_penalty": 0.7, "repetition_context_size": 3},
    {"repetition_penalty": 1.2, "repetition_context_size": 10000},
    {"presence_penalty": 0.8},
    {"presence_penalty": -0.5, "presence_context_size": 4},
    {"frequency_penalty": 0.3},
    {"frequency_penalty": 1.5, "frequency_context_size": 7},
    {
        "logit_bias": {"3": 4.0, "5": -1.0},
        "repetition_penalty": 1.4,
        "repetition_context_size": 12,
        "presence_penalty": 0.25,
        "presence_context_size": 5,
        "frequency_penalty": -0.125,
        "frequency_context_size": 9,
    },
]
# Options of make_sampler, in its order of filters.
FILTERS = [
    {"top_p": 0.9},
    {"top_p": 0.35},
    {"top_p": 0.001},
    {"min_p": 0.2},
    {"min_p": 1.0},
    {"xtc_probability": 1.0, "xtc_threshold": 0.02},
    {"xtc_probability": 1.0, "xtc_threshold": 0.1},
    {"xtc_probability": 1.0, "xtc_threshold": 0.5},
    {"top_k": 1},
    {"top_k": 7},
    {"top_p": 0.8, "min_p": 0.1},
    {"top_p": 0.9, "min_p": 0.05, "xtc_probability": 1.0, "xtc_threshold": 0.04},
]


def processed(options, tokens, logits):
    options = dict(options)
    bias = options.pop("logit_bias", None)
    bias = {int(id): value for id, value in bias.items()} if bias else None
    logits = mx.array(logits)[None]
    for processor in sample_utils.make_logits_processors(logit_bias=bias, **options):
        logits = processor(mx.array(tokens), logits)
    return logits[0]


def filtered(options, logprobs):
    logprobs = mx.array(logprobs)[None]
    if "top_p" in options:
        logprobs = sample_utils.apply_top_p(logprobs, options["top_p"])
    if "min_p" in options:
        logprobs = sample_utils.apply_min_p(logprobs, options["min_p"])
    if "xtc_probability" in options:
        threshold = options["xtc_threshold"]
        logprobs = sample_utils.apply_xtc(logprobs, 1.0, threshold, [END])
    if "top_k" in options:
        logprobs = sample_utils.apply_top_k(logprobs, options["top_k"])
    return logprobs[0]


def numbers(values):
    return [float(value) if math.isfinite(value) else None for value in np.array(values)]


def case(options, tokens, logprobs, after, filters):
    options = dict(options)
    if "logit_bias" in options:
        bias = options["logit_bias"].items()
        options["logit_bias"] = {id: v if math.isfinite(v) else None for id, v in bias}
    return {
        "options": options,
        "filters": filters,
        "tokens": tokens,
        "logits": numbers(logprobs),
        "expected": numbers(after),
    }


def main(folder, vocab=600, seeds=30):
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    cases = []
    for seed in range(int(seeds)):
        random = np.random.default_rng(seed)
        logits = random.normal(0, 2, int(vocab)).astype(np.float32)
        logprobs = np.array(mx.array(logits) - mx.logsumexp(mx.array(logits)))
        tokens = random.integers(0, min(int(vocab), 40), 30).tolist()
        for options in PROCESSORS:
            # Positive and negative logits, for the repetition penalty.
            after = processed(options, tokens, logits)
            cases.append(case(options, tokens, logits, after, False))
        for options in FILTERS:
            cases.append(case(options, [], logprobs, filtered(options, logprobs), True))
    text = json.dumps({"end_token": END, "cases": cases}).replace(', {"options"', ',\n{"options"')
    (folder / "cases.json").write_text(text + "\n")


if __name__ == "__main__":
    if not 2 <= len(sys.argv) <= 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
