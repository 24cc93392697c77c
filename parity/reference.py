"""Writes MODEL/reference.json: mlx-lm's results for a bundled model in float32 on a CPU.

    LD_PRELOAD=.mlx/lib/libmlxc.so PYTHONPATH=.mlx/oracle python3 parity/reference.py MODEL VALID

For eight prompts: the ids, 64 greedy tokens, and the eight largest log-probabilities of the first.
For VALID, a JSONL file of {"text"} rows: nats in separate windows of 256 tokens, including EOS.
openelm-core/tests/tales.rs compares them.
"""

import importlib.metadata
import json
import math
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.utils import load_model
from tokenizers import Tokenizer

WINDOW, GREEDY, TOP = 256, 64, 8
PROMPTS = [
    "Once upon a time",
    "There was once a king who had three sons",
    "The wolf said to the little girl",
    '"Good morning," said the',
    "Far out in the sea, where the water is as blue as",
    "In the forest there lived",
    "The old woman",
    "Snow fell 🦙 softly",
]


def continued(model, tokenizer, prompt):
    ids = [1, *tokenizer.encode(prompt, add_special_tokens=False).ids]
    cache = make_prompt_cache(model)
    logits = model(mx.array([ids]), cache=cache)[0, -1]
    logprobs = np.array(logits - mx.logsumexp(logits))
    best = np.argsort(-logprobs, kind="stable")[:TOP]
    greedy = []
    for _ in range(GREEDY):
        greedy.append(int(mx.argmax(logits)))
        logits = model(mx.array([[greedy[-1]]]), cache=cache)[0, -1]
    return {
        "prompt": prompt,
        "prompt_ids": ids,
        "greedy_ids": greedy,
        "greedy_text": tokenizer.decode(greedy),
        "first_top_ids": best.tolist(),
        "first_top_logprobs": [round(float(logprobs[i]), 6) for i in best],
    }


def nats_of(model, ids):
    nats = 0.0
    for at in range(0, len(ids) - 1, WINDOW):
        row = mx.array([ids[at : at + WINDOW + 1]])
        logits = model(row[:, :-1])
        chosen = mx.take_along_axis(logits, row[:, 1:, None], axis=-1)[..., 0]
        nats += (mx.logsumexp(logits, axis=-1) - chosen).sum().item()
    return nats


def main(folder, valid):
    folder = Path(folder)
    model, _ = load_model(folder)
    model.set_dtype(mx.float32)
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    texts = [json.loads(line)["text"] for line in Path(valid).read_text().splitlines() if line]
    rows = [[1, *tokenizer.encode(text, add_special_tokens=False).ids, 2] for text in texts]
    nats = [nats_of(model, ids) for ids in rows]
    size = sum(len(text.encode()) for text in texts)
    version = importlib.metadata.version
    reference = {
        "made_with": f"mlx-lm {version('mlx-lm')}, mlx {mx.__version__} CPU, weights cast to float32",
        "continuations": [continued(model, tokenizer, prompt) for prompt in PROMPTS],
        "fairytales_val": {
            "documents": len(texts),
            "window": WINDOW,
            "tokens": sum(len(ids) - 1 for ids in rows),
            "nats": round(sum(nats), 3),
            "bits_per_byte": round(sum(nats) / math.log(2) / size, 5),
            "last_tokens": len(rows[-1]) - 1,
            "last_nats": round(nats[-1], 5),
        },
    }
    (folder / "reference.json").write_text(json.dumps(reference, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
