"""Measures held-out bits per byte of models and of a 5-gram model.

    bits_per_byte.py TRAIN[,TRAIN...] VALID MODEL...

TRAIN and VALID are JSONL files of {"text"} rows. Each MODEL folder predicts VALID in separate
windows of 256 tokens through mlx-lm, every token and EOS once. The 5-gram model is counted over
TRAIN with the first MODEL's tokenizer: interpolated Kneser-Ney with one discount per order, n1 /
(n1 + 2 n2). Its contexts extend to the beginning of the document, not of the window. Prints JSON.
"""

import json
import math
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.utils import load_model
from tokenizers import Tokenizer

BOS, EOS, WINDOW, ORDER = 1, 2, 256, 5
BITS = 12  # per token in a packed n-gram


def texts(path):
    return [json.loads(line)["text"] for line in Path(path).read_text().splitlines() if line]


def encoded(tokenizer, documents):
    """Token ids of each document, with BOS and EOS."""
    batch = tokenizer.encode_batch(documents, add_special_tokens=False)
    return [[BOS, *one.ids, EOS] for one in batch]


def of_network(folder, documents):
    """Negative log-likelihood in nats of all tokens but the first of each document."""
    model, _ = load_model(Path(folder))
    model.set_dtype(mx.float32)
    rows = [ids[at : at + WINDOW + 1] for ids in documents for at in range(0, len(ids) - 1, WINDOW)]
    rows.sort(key=len)
    nats, at = 0.0, 0
    while at < len(rows):
        alike = [row for row in rows[at : at + 16] if len(row) == len(rows[at])]
        at += len(alike)
        ids = mx.array(alike)
        logits = model(ids[:, :-1])
        chosen = mx.take_along_axis(logits, ids[:, 1:, None], axis=-1)[..., 0]
        nats += (mx.logsumexp(logits, axis=-1) - chosen).sum().item()
    return nats


def grams(documents, order):
    """All n-grams of this order that end in a predicted token, packed into integers."""
    padded = [[BOS] * (ORDER - 2) + ids for ids in documents]
    found = []
    for ids in padded:
        ids = np.array(ids, np.uint64)
        count = len(ids) - (ORDER - 1)
        packed = np.zeros(count, np.uint64)
        for place in range(ORDER - order, ORDER):
            packed = (packed << np.uint64(BITS)) | ids[place : place + count]
        found.append(packed)
    return np.concatenate(found)


def looked_up(keys, values, wanted):
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, values[at], 0)


def of_5_gram(train, valid, vocabulary):
    """Negative log-likelihood in nats of the same tokens."""
    one = np.uint64(BITS)
    probability = np.full(sum(len(ids) - 1 for ids in valid), 1.0 / vocabulary)
    for order in range(1, ORDER + 1):
        if order == ORDER:
            keys, counts = np.unique(grams(train, order), return_counts=True)
        else:  # the number of distinct preceding tokens
            longer = np.unique(grams(train, order + 1))
            keys, counts = np.unique(
                longer & ((np.uint64(1) << np.uint64(BITS * order)) - np.uint64(1)), return_counts=True
            )
        once, twice = (counts == 1).sum(), (counts == 2).sum()
        discount = once / (once + 2 * twice) if once and twice else 0.5
        histories, first = np.unique(keys >> one, return_index=True)
        total = np.add.reduceat(counts, first)
        kinds = np.diff(np.append(first, len(keys)))
        wanted = grams(valid, order)
        count = looked_up(keys, counts, wanted)
        of_history = looked_up(histories, total, wanted >> one)
        kinds_of = looked_up(histories, kinds, wanted >> one)
        known = of_history > 0
        safe = np.maximum(of_history, 1)
        mixed = np.maximum(count - discount, 0) / safe + discount * kinds_of / safe * probability
        probability = np.where(known, mixed, probability)
    return -np.log(probability).sum()


def main(train, valid, *models):
    documents = texts(valid)
    size = sum(len(text.encode()) for text in documents)
    table = {"documents": len(documents), "bytes": size, "bits_per_byte": {}}
    for place, folder in enumerate(models):
        tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
        ids = encoded(tokenizer, documents)
        if place == 0:
            if tokenizer.get_vocab_size() > 1 << BITS:
                sys.exit(f"{folder}: more than {1 << BITS} pieces do not fit a packed 5-gram")
            rows = [text for path in train.split(",") for text in texts(path)]
            nats = of_5_gram(encoded(tokenizer, rows), ids, tokenizer.get_vocab_size())
            table["bits_per_byte"]["5-gram"] = nats / math.log(2) / size
        table["bits_per_byte"][folder] = of_network(folder, ids) / math.log(2) / size
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
