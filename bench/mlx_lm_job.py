"""Runs the job of `openelm bench --json` with mlx-lm: the same prompts, definitions and report.

    mlx_lm_job.py MODEL PROMPT_TOKENS[,...] GENERATED_TOKENS REPEAT WARM_UP

WARM_UP is the prompt length of the first run, which is not counted; 0 repeats the prompt, like
`openelm bench`. Prefill speed is the number of prompt tokens over the time to the first token;
decode speed is the number of later tokens over the time after the first. Tokens come from mlx-lm's
`generate_step`, greedy, always to the full length.
"""

import os

# The preloaded BLAS is for this process, not for the compiler started by MLX.
os.environ.pop("LD_PRELOAD", None)

import json
import sys
import time
from importlib.metadata import version
from pathlib import Path
from statistics import median

import mlx.core as mx
from mlx_lm.generate import generate_step
from mlx_lm.utils import load_model


def generate(model, prompt, tokens):
    """Seconds to the first token, and from the first to the last."""
    started = time.perf_counter()
    times = []
    for _token, _logprobs in generate_step(mx.array(prompt), model, max_tokens=tokens):
        times.append(time.perf_counter() - started)
    return times[0], times[-1] - times[0]


def main(folder, lengths, tokens, repeat, warm_up):
    started = time.perf_counter()
    model, config = load_model(Path(folder))
    load = time.perf_counter() - started
    runs = []
    for length in lengths:
        prompt = [i * 7919 % config["vocab_size"] for i in range(length)]
        generate(model, prompt[: warm_up or length], 2 if warm_up else tokens)
        times = [generate(model, prompt, tokens) for _ in range(repeat)]
        runs.append(
            {
                "prompt_tokens": length,
                "prefill_tokens_per_second": median(length / first for first, _ in times),
                "decode_tokens_per_second": median((tokens - 1) / rest for _, rest in times),
                "first_token_seconds": median(first for first, _ in times),
            }
        )
    versions = {name: version(name) for name in ("mlx", "mlx-lm")}
    memory = {
        "active_bytes": mx.get_active_memory(),
        "peak_bytes": mx.get_peak_memory(),
        "cache_bytes": mx.get_cache_memory(),
    }
    device = {"device": mx.default_device().type.name, "device_info": mx.device_info()}
    print(json.dumps({"load_seconds": load, "versions": versions, **device, **memory, "runs": runs}))


if __name__ == "__main__":
    folder, lengths, *counts = sys.argv[1:]
    main(folder, [int(n) for n in lengths.split(",")], *map(int, counts))
