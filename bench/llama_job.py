"""Speed of llama.cpp on a GGUF file, as one JSON object. A part of kernels.py.

    llama_job.py FILE THREADS PROMPT_TOKENS GENERATED_TOKENS REPEAT
"""

import json
import sys
import time
from statistics import median

import llama_cpp


def main():
    file, threads, prompt, generated, repeat = sys.argv[1], *map(int, sys.argv[2:])
    model = llama_cpp.Llama(
        file, n_ctx=prompt + generated + 1, n_batch=512, n_threads=threads,
        n_threads_batch=threads, verbose=False,
    )
    vocab = model.n_vocab()
    tokens = [i * 7919 % vocab for i in range(prompt)]
    prefill, decode = [], []
    # The first run is a warm-up.
    for _ in range(repeat + 1):
        model.reset()
        start = time.perf_counter()
        model.eval(tokens)
        middle = time.perf_counter()
        for i in range(generated):
            model.eval([i % vocab])
        end = time.perf_counter()
        prefill.append(prompt / (middle - start))
        decode.append(generated / (end - middle))
    print(json.dumps({"prefill": median(prefill[1:]), "decode": median(decode[1:])}))


if __name__ == "__main__":
    main()
