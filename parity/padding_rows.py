"""Loss and greedy tokens of a small model with CoreNet's 32,128 rows of the embedding, in numpy, for
openelm-core/tests/convert/padding_rows.rs, which makes the same weights.

    python3 parity/padding_rows.py

The network is OpenELM's, in float64, from the paper's formulas; nothing here is MLX or PyTorch.
Writes openelm-core/tests/fixtures/padding_rows.json.
"""

import json
from pathlib import Path

import numpy as np

FIXTURE = Path(__file__).resolve().parent.parent / "openelm-core/tests/fixtures/padding_rows.json"
D, HEAD, ROWS, TOKENS = 16, 8, 32_128, 32_000
LAYERS = [{"heads": 1, "ffn": 16}, {"heads": 2, "ffn": 32}]
IDS = [1, 5, 17, 90, 31_999, 4_000, 12, 700, 2]


class Numbers:
    """Numbers in [-scale, scale), the same in every language: a hash of a counter."""

    def __init__(self):
        self.count = 0

    def take(self, shape, scale):
        size = int(np.prod(shape))
        n = np.arange(self.count, self.count + size, dtype=np.uint64)
        self.count += size
        mask = np.uint64(0xFFFFFFFF)
        x = (n * np.uint64(2654435761)) & mask
        x ^= x >> np.uint64(15)
        x = (x * np.uint64(2246822519)) & mask
        x ^= x >> np.uint64(13)
        unit = x.astype(np.float64) / 2.0**31 - 1
        return (unit * scale).astype(np.float32).astype(np.float64).reshape(shape)


def norm(x, weight):
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-6) * weight


def rope(x):
    """x is [heads, length, HEAD]: the two halves of a head are rotated."""
    angles = np.outer(np.arange(x.shape[1]), 10_000.0 ** (-np.arange(0, HEAD, 2) / HEAD))
    cos, sin = np.cos(angles), np.sin(angles)
    a, b = x[..., : HEAD // 2], x[..., HEAD // 2 :]
    return np.concatenate([a * cos - b * sin, b * cos + a * sin], -1)


def softmax(x):
    x = np.exp(x - x.max(-1, keepdims=True))
    return x / x.sum(-1, keepdims=True)


def logsumexp(x):
    top = x.max(-1)
    return top + np.log(np.exp(x - top[:, None]).sum(-1))


numbers = Numbers()
embedding = numbers.take([ROWS, D], 1.0)
# Large enough to be predicted.
embedding[TOKENS:] *= 2
x = embedding[IDS[:-1]]
length = len(x)
for layer in LAYERS:
    heads, ffn = layer["heads"], layer["ffn"]
    qkv_proj = numbers.take([3 * heads * HEAD, D], 0.5)
    q_norm, k_norm = numbers.take([HEAD], 1.0), numbers.take([HEAD], 1.0)
    out_proj = numbers.take([D, heads * HEAD], 0.5)
    proj_1, proj_2 = numbers.take([2 * ffn, D], 0.5), numbers.take([D, ffn], 0.5)
    ffn_norm, attn_norm = numbers.take([D], 1.0), numbers.take([D], 1.0)
    qkv = (norm(x, attn_norm) @ qkv_proj.T).reshape(length, 3 * heads, HEAD).transpose(1, 0, 2)
    q, k, v = np.split(qkv, 3)
    q, k = rope(norm(q, q_norm)), rope(norm(k, k_norm))
    scores = q @ k.transpose(0, 2, 1) / np.sqrt(HEAD)
    scores = np.where(np.tril(np.ones([length, length], bool)), scores, -np.inf)
    attended = (softmax(scores) @ v).transpose(1, 0, 2).reshape(length, heads * HEAD)
    x = x + attended @ out_proj.T
    gate, value = np.split(norm(x, ffn_norm) @ proj_1.T, 2, -1)
    x = x + (gate / (1 + np.exp(-gate)) * value) @ proj_2.T
logits = norm(x, numbers.take([D], 1.0)) @ embedding.T


def losses(logits):
    total = logsumexp(logits)
    cross_entropy = total - logits[np.arange(length), IDS[1:]]
    return cross_entropy.mean(), 1e-4 * (total**2).mean()


(loss, z_loss), (without, _) = losses(logits), losses(logits[:, :TOKENS])
FIXTURE.write_text(json.dumps({
    "ids": IDS,
    "greedy": logits.argmax(-1).tolist(),
    "greedy_without_padding": logits[:, :TOKENS].argmax(-1).tolist(),
    "loss": loss,
    "z_loss": z_loss,
    "loss_without_padding": without,
}, indent=1) + "\n")
