"""Writes openelm-core/tests/fixtures/parity.json, for tests that need no Python.

    PYTHONPATH=.mlx/oracle python3 parity/fixtures.py

It holds logits of tiny models by mlx-lm, whose weights both sides make from one integer formula
(`weights` here, the same in openelm-core/tests/parity.rs), and CoreNet's RoPE tables. mlx-lm
always gates its FFN; the model without a gate comes from a float64 forward pass in numpy, which
must agree with mlx-lm on all the others.
"""

import json
from pathlib import Path

import mlx.core as mx
import numpy as np
from mlx_lm.models.openelm import Model, ModelArgs
from make_checkpoints import shapes_of

OUTPUT = Path(__file__).parent.parent / "openelm-core/tests/fixtures/parity.json"

BASE = {
    "model_type": "openelm",
    "model_dim": 48,
    "head_dim": 16,
    "num_transformer_layers": 3,
    "num_gqa_groups": 2,
    "num_query_heads": [2, 4, 6],
    "num_kv_heads": [1, 2, 3],
    "ffn_multipliers": [0.5, 1.5, 4.0],
    "ffn_dim_divisor": 16,
    "ffn_with_glu": True,
    "normalize_qk_projections": True,
    "share_input_output_layers": True,
    "rope_freq_constant": 10000,
    "max_context_length": 128,
    "rope_max_length": 256,
    "vocab_size": 96,
}
CASES = {
    "tied": {},
    "untied": {"share_input_output_layers": False},
    "no_qk_norm": {"normalize_qk_projections": False},
    "no_glu": {"ffn_with_glu": False},
    "head_dim_128": {
        "head_dim": 128,
        "num_transformer_layers": 2,
        "num_query_heads": [2, 4],
        "num_kv_heads": [1, 2],
        "ffn_multipliers": [1.0, 2.0],
    },
    "other_constants": {
        "rope_freq_constant": 500,
        "rms_norm_eps": 0.01,
        "num_gqa_groups": 1,
        "num_kv_heads": [2, 4, 6],
    },
}
POSITIONS = [0, 1, 6, 23]
GREEDY = 12


def weights(name, shape):
    """Evenly spread over (-1, 1) times sqrt(3 / in), by a hash of the tensor's name and the
    element's index; norms around 1. Exact in float32 up to the last multiplication."""
    seed = 0x811C9DC5
    for byte in name.encode():
        seed = (seed ^ byte) * 0x01000193 % 2**32
    x = (np.arange(np.prod(shape), dtype=np.uint64) * 0x9E3779B9 + seed) % 2**32
    x = (x ^ (x >> 16)) * 0x85EBCA6B % 2**32
    x = (x ^ (x >> 13)) * 0xC2B2AE35 % 2**32
    x ^= x >> 16
    even = ((x >> 16).astype(np.float32) - np.float32(32768)) / np.float32(32768)
    even = even.reshape(shape)
    if len(shape) == 1:
        return np.float32(1) + even / np.float32(4)
    return even * np.float32((3 / shape[1]) ** 0.5)


def prompt(vocab):
    return [1] + [(i * i * 7 + i * 5 + 3) % vocab for i in range(23)]


def by_mlx_lm(config, tensors, ids):
    """Logits [L, V] of `ids`, and the greedy tokens that follow."""
    model = Model(ModelArgs.from_dict(config))
    model.load_weights([(name, mx.array(w)) for name, w in tensors.items()])
    logits = np.array(model(mx.array(ids)[None])[0])
    return logits, greedy(lambda ids: np.array(model(mx.array(ids)[None])[0]), ids)


def by_numpy(config, tensors, ids):
    """The same in float64, from the architecture's description."""
    return forward(config, tensors, ids), greedy(lambda ids: forward(config, tensors, ids), ids)


def forward(config, tensors, ids):
    w = {name: value.astype(np.float64) for name, value in tensors.items()}
    eps, hd, length = config.get("rms_norm_eps", 1e-6), config["head_dim"], len(ids)
    norm = lambda x, name: x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * w[name]
    silu = lambda x: x / (1 + np.exp(-x))
    angles = np.outer(
        np.arange(length), config["rope_freq_constant"] ** -(np.arange(0, hd, 2) / hd)
    )
    cos, sin = np.cos(angles)[:, None], np.sin(angles)[:, None]

    def rope(x):
        left, right = np.split(x, 2, -1)
        return np.concatenate([left * cos - right * sin, right * cos + left * sin], -1)

    x = w["transformer.token_embeddings.weight"][ids]
    for i, (heads, kv_heads) in enumerate(zip(config["num_query_heads"], config["num_kv_heads"])):
        at = f"transformer.layers.{i}"
        qkv = norm(x, f"{at}.attn_norm.weight") @ w[f"{at}.attn.qkv_proj.weight"].T
        qkv = qkv.reshape(length, -1, hd)
        q, k, v = np.split(qkv, [heads, heads + kv_heads], 1)
        if config["normalize_qk_projections"]:
            q, k = norm(q, f"{at}.attn.q_norm.weight"), norm(k, f"{at}.attn.k_norm.weight")
        k, v = (np.repeat(a, heads // kv_heads, 1) for a in (rope(k), v))
        scores = np.einsum("qhd,khd->hqk", rope(q), k) * hd**-0.5
        scores = np.where(np.tri(length, dtype=bool), scores, -np.inf)
        scores = np.exp(scores - scores.max(-1, keepdims=True))
        attended = np.einsum("hqk,khd->qhd", scores / scores.sum(-1, keepdims=True), v)
        x = x + attended.reshape(length, -1) @ w[f"{at}.attn.out_proj.weight"].T
        h = norm(x, f"{at}.ffn_norm.weight") @ w[f"{at}.ffn.proj_1.weight"].T
        if config["ffn_with_glu"]:
            gate, up = np.split(h, 2, -1)
            h = silu(gate) * up
        else:
            h = silu(h)
        x = x + h @ w[f"{at}.ffn.proj_2.weight"].T
    head = "transformer.token_embeddings.weight"
    if not config["share_input_output_layers"]:
        head = "lm_head.weight"
    return norm(x, "transformer.norm.weight") @ w[head].T


def greedy(logits_of, ids):
    ids, start = list(ids), len(ids)
    for _ in range(GREEDY):
        last = np.sort(logits_of(ids)[-1])
        assert last[-1] - last[-2] > 1e-3, "a near tie: change the formula's constants"
        ids.append(int(logits_of(ids)[-1].argmax()))
    return ids[start:]


def rope_tables():
    """Cosines and sines as CoreNet's rotary_embeddings.py takes them, in float32."""
    for head_dim, base in [(64, 10000.0), (128, 10000.0), (32, 500000.0)]:
        exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
        # A float32 power rounded once: numpy's own may be off by a bit, which position 4,000
        # turns into 2e-4.
        periods = (base ** exponents.astype(np.float64)).astype(np.float32)
        for position in [1, 499, 2047, 4000]:
            angles = np.float32(position) * (np.float32(1) / periods)
            yield {
                "head_dim": head_dim,
                "base": base,
                "position": position,
                "cos": digits(np.cos(angles.astype(np.float64))),
                "sin": digits(np.sin(angles.astype(np.float64))),
            }


def digits(values):
    return [float(f"{value:.8g}") for value in np.ravel(values)]


def main():
    mx.set_default_device(mx.cpu)
    cases = []
    for name, changes in CASES.items():
        config = BASE | changes
        shapes = dict(shapes_of(config))
        if not config["ffn_with_glu"]:
            for key, shape in shapes.items():
                if key.endswith("proj_1.weight"):
                    shapes[key] = (shape[0] // 2, shape[1])
        tensors = {key: weights(key, shape) for key, shape in shapes.items()}
        ids = prompt(config["vocab_size"])
        logits, tokens = by_numpy(config, tensors, ids)
        if config["ffn_with_glu"]:
            by_mlx, tokens = by_mlx_lm(config, tensors, ids)
            print(f"{name}: numpy and mlx-lm differ by {np.abs(by_mlx - logits).max():.1e}")
            assert np.abs(by_mlx - logits).max() < 2e-5
            logits = by_mlx
        print(f"{name}: logits {logits.std():.2f} wide, greedy {tokens}")
        cases.append(
            {
                "name": name,
                "config": config,
                "prompt": ids,
                "positions": POSITIONS,
                "logits": [digits(logits[position]) for position in POSITIONS],
                "greedy": tokens,
            }
        )
    lines = lambda rows: ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows)
    OUTPUT.parent.mkdir(exist_ok=True)
    OUTPUT.write_text(
        f'{{"cases":[\n{lines(cases)}\n],"rope":[\n{lines(rope_tables())}\n]}}\n'
    )


if __name__ == "__main__":
    main()
