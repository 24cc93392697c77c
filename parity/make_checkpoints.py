"""Writes random OpenELM checkpoints and the results of mlx-lm's `openelm` model.

    make_checkpoints.py FOLDER [CASE...]

Each FOLDER/CASE is a checkpoint in Apple's Hugging Face layout (config.json and safetensors, one
file or shards with an index) with the results for openelm-core/tests/parity_live.rs:

expected.json   the prompts and the greedy tokens; "dtype" is the type that both sides compute in
expected.safetensors, all float32, V the vocabulary:
  logits            [300, V]  of the whole prompt at once
  greedy_logprobs   [64, V]   ([16, V] of 16-bit cases without FULL=1) of each step of mlx-lm's `generate_step` with a KV cache
  exact_logits      [300, V]  as `logits`, RoPE given its periods (see `ExactRope`)
  long_logits, long_exact_logits   [P, V]  at "long_positions" of a 2,000-token prompt
  float32_logits    [300, V]  of the same weights computed in float32, for 16-bit cases

Runs on MLX's CPU backend; parity/run.sh preloads openelm-core's BLAS, because the reference BLAS in
MLX's wheel takes about 50 times as long.
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

# The preloaded BLAS is for this process, not for the compiler started by MLX.
os.environ.pop("LD_PRELOAD", None)

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm.generate import generate_step
from mlx_lm.sample_utils import make_sampler
from mlx_lm.utils import load_model

PROMPT = 300
GREEDY = 64
# Tokens in 16 bits, which are slow on a CPU, and where rounding soon changes tokens. FULL=1 uses
# all.
GREEDY_16_BIT = GREEDY if os.environ.get("FULL") == "1" else 16
LONG = 2000
LONG_POSITIONS = [0, 499, 999, 1499] + list(range(LONG - 12, LONG))


@dataclass
class Size:
    """A released size, from CoreNet's general_gpt.py."""

    layers: int
    model_dim: int
    head_dim: int


SIZES = {
    "270M": Size(16, 1280, 64),
    "450M": Size(20, 1536, 64),
    "1_1B": Size(28, 2048, 64),
    "3B": Size(36, 3072, 128),
}


@dataclass
class Case:
    """One checkpoint. `layers` selects layers of the size; None keeps all."""

    name: str
    size: str
    vocab: int
    layers: list | None = None
    stored: str = "float32"
    computed: str = "float32"
    shards: int = 1
    flags: dict = field(default_factory=dict)
    # Also measures position 2,000.
    long: bool = False
    seed: int = 0


CASES = [
    # The complete model. LONG=1 adds two minutes for position 2,000.
    Case("270M", "270M", 32000, long=os.environ.get("LONG") == "1", seed=1),
    # Layers of each head count, with a small vocabulary. Stored in 16 bits like Apple's Instruct
    # models, and computed in float32, the default on a CPU.
    Case("450M-8-layers", "450M", 2048, [0, 2, 3, 9, 10, 15, 16, 19], "bfloat16", shards=2),
    Case("1_1B-5-layers", "1_1B", 2048, [0, 3, 10, 18, 27], "bfloat16", shards=3),
    Case("3B-4-layers", "3B", 2048, [0, 4, 18, 35], "bfloat16", shards=2),
    Case("untied", "270M", 2048, [0, 5, 12], flags={"share_input_output_layers": False}, long=True),
    Case("no-qk-norm", "270M", 2048, [0, 5, 12], flags={"normalize_qk_projections": False}),
    Case("bfloat16", "270M", 512, [0, 5], "bfloat16", "bfloat16"),
    Case("float16", "270M", 512, [0, 5], "float16", "float16"),
]


def make_divisible(v, divisor):
    """CoreNet's rounding of a width."""
    rounded = max(divisor, int(v + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * v else rounded


def config_of(case):
    """The config.json of a case, with Apple's keys."""
    size = SIZES[case.size]
    linspace = lambda first, last: [
        round(first + (last - first) * i / (size.layers - 1), 2) for i in range(size.layers)
    ]
    heads = [
        make_divisible(size.model_dim * m, 4 * size.head_dim) // size.head_dim
        for m in linspace(0.5, 1.0)
    ]
    kept = case.layers or range(size.layers)
    config = {
        "activation_fn_name": "swish",
        "architectures": ["OpenELMForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "ffn_dim_divisor": 256,
        "ffn_multipliers": [linspace(0.5, 4.0)[i] for i in kept],
        "ffn_with_glu": True,
        "head_dim": size.head_dim,
        "initializer_range": 0.02,
        "max_context_length": 2048,
        "model_dim": size.model_dim,
        "model_type": "openelm",
        "normalization_layer_name": "rms_norm",
        "normalize_qk_projections": True,
        "num_gqa_groups": 4,
        "num_kv_heads": [heads[i] // 4 for i in kept],
        "num_query_heads": [heads[i] for i in kept],
        "num_transformer_layers": len(kept),
        "qkv_multipliers": [0.5, 1.0],
        "rope_freq_constant": 10000,
        "rope_max_length": 4096,
        "share_input_output_layers": True,
        "torch_dtype": case.stored,
        "use_cache": True,
        "vocab_size": case.vocab,
    }
    if case.layers:
        # The kept layers' heads do not follow the multipliers.
        del config["qkv_multipliers"]
    return config | case.flags


def shapes_of(config):
    """Name and shape of each tensor, in Apple's order."""
    d, hd, vocab = config["model_dim"], config["head_dim"], config["vocab_size"]
    yield "transformer.token_embeddings.weight", (vocab, d)
    layers = zip(config["num_query_heads"], config["num_kv_heads"], config["ffn_multipliers"])
    for i, (q, kv, multiplier) in enumerate(layers):
        inner = make_divisible(multiplier * d, config["ffn_dim_divisor"])
        prefix = f"transformer.layers.{i}"
        yield f"{prefix}.attn.qkv_proj.weight", ((q + 2 * kv) * hd, d)
        if config["normalize_qk_projections"]:
            yield f"{prefix}.attn.q_norm.weight", (hd,)
            yield f"{prefix}.attn.k_norm.weight", (hd,)
        yield f"{prefix}.attn.out_proj.weight", (d, q * hd)
        yield f"{prefix}.ffn.proj_1.weight", (2 * inner, d)
        yield f"{prefix}.ffn.proj_2.weight", (d, inner)
        yield f"{prefix}.ffn_norm.weight", (d,)
        yield f"{prefix}.attn_norm.weight", (d,)
    yield "transformer.norm.weight", (d,)
    if not config["share_input_output_layers"]:
        yield "lm_head.weight", (vocab, d)


def random_tensor(rng, name, shape, layers):
    """CoreNet's initialisation, with norms that differ from 1: queries and keys are long enough to
    attend to single tokens, and the final norm spreads the logits like a trained model's."""
    values = rng.standard_normal(shape, dtype=np.float32)
    if "norm" in name:
        longer = {"transformer.norm.weight": 2.0}
        mean = 1.5 if name.endswith(("q_norm.weight", "k_norm.weight")) else longer.get(name, 1.0)
        return mean + 0.1 * mean * values
    std = shape[1] ** -0.5
    if name.endswith(("out_proj.weight", "proj_2.weight")):
        std *= (2 * layers) ** -0.5
    return np.multiply(values, np.float32(std), out=values)


def write_checkpoint(case, config, folder):
    """Writes config.json and the weights; returns the number of parameters."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    rng = np.random.default_rng([case.seed, *case.name.encode()])
    shapes = list(shapes_of(config))
    sizes = np.cumsum([0] + [int(np.prod(shape)) for _, shape in shapes])
    shard_of = [int(case.shards * start // sizes[-1]) for start in sizes[:-1]]
    dtype = getattr(mx, case.stored)
    weight_map = {}
    for shard in range(case.shards):
        name = "model.safetensors"
        if case.shards > 1:
            name = f"model-{shard + 1:05}-of-{case.shards:05}.safetensors"
        tensors = {}
        for (tensor, shape), of in zip(shapes, shard_of):
            if of == shard:
                values = random_tensor(rng, tensor, shape, len(config["ffn_multipliers"]))
                tensors[tensor] = mx.array(values).astype(dtype)
                mx.eval(tensors[tensor])
                weight_map[tensor] = name
        mx.save_safetensors(str(folder / name), tensors, metadata={"format": "pt"})
    if case.shards > 1:
        index = {"metadata": {"total_size": int(sizes[-1]) * dtype.size}, "weight_map": weight_map}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")
    return int(sizes[-1])


class ExactRope(nn.Module):
    """RoPE with CoreNet's angles. mlx-lm passes the base to `mx.fast.rope`, which computes exp2(-j
    * log2(base) / half) in float32, with an error of about 1e-6 of an angle times the position.
    With given periods, the angles are exact."""

    def __init__(self, dims, base):
        super().__init__()
        self.dims = dims
        self._periods = mx.array((base ** (np.arange(0, dims, 2) / dims)).astype(np.float32))

    def __call__(self, x, offset=0):
        kwargs = {"traditional": False, "base": None, "scale": 1.0, "offset": offset}
        return mx.fast.rope(x, self.dims, freqs=self._periods, **kwargs)


def prompt_of(rng, case, length):
    return [1] + rng.integers(3, case.vocab, length - 1).tolist()


def logits_at(model, prompt, positions):
    """Logits [P, V] at the positions, in float32."""
    hidden = model.transformer(mx.array(prompt)[None])[0][mx.array(list(positions))]
    head = model.transformer.token_embeddings.as_linear
    if not model.args.share_input_output_layers:
        head = model.lm_head
    logits = head(hidden).astype(mx.float32)
    mx.eval(logits)
    return logits


def run(case, folder):
    started = time.time()
    config = config_of(case)
    parameters = write_checkpoint(case, config, folder)
    written = time.time()
    model, _ = load_model(folder)
    model.set_dtype(getattr(mx, case.computed))

    rng = np.random.default_rng([case.seed, 1])
    prompt, long_prompt = prompt_of(rng, case, PROMPT), prompt_of(rng, case, LONG)
    logits = model(mx.array(prompt)[None])[0].astype(mx.float32)
    expected = {"logits": logits}
    count = GREEDY if case.computed == "float32" else GREEDY_16_BIT
    steps = generate_step(
        mx.array(prompt), model, max_tokens=count, sampler=make_sampler(temp=0.0)
    )
    steps = [(int(token), logprobs.astype(mx.float32)) for token, logprobs in steps]
    greedy = [token for token, _ in steps]
    expected["greedy_logprobs"] = mx.stack([logprobs for _, logprobs in steps])
    likeliest = np.sort(np.array(expected["greedy_logprobs"]), axis=1)
    margins = likeliest[:, -1] - likeliest[:, -2]
    if case.long:
        expected["long_logits"] = logits_at(model, long_prompt, LONG_POSITIONS)
    for layer in model.layers:
        layer.attn.rope = ExactRope(config["head_dim"], config["rope_freq_constant"])
    expected["exact_logits"] = logits_at(model, prompt, range(PROMPT))
    if case.long:
        expected["long_exact_logits"] = logits_at(model, long_prompt, LONG_POSITIONS)
    if case.computed != "float32":
        model.set_dtype(mx.float32)
        expected["float32_logits"] = logits_at(model, prompt, range(PROMPT))
    mx.save_safetensors(str(folder / "expected.safetensors"), expected)
    facts = {
        "parameters": parameters,
        "dtype": case.computed,
        "prompt": prompt,
        "greedy": greedy,
        "smallest_margin": float(margins.min()),
        "long_prompt": long_prompt if case.long else [],
        "long_positions": LONG_POSITIONS if case.long else [],
    }
    # Written last: a folder with this file is complete.
    (folder / "expected.json").write_text(json.dumps(facts) + "\n")
    print(
        f"{case.name:<14} {parameters:>11,} parameters  logits {float(logits.std()):.2f} wide  "
        f"{len(set(greedy)):>2} distinct tokens of {count}  "
        f"smallest greedy margin {margins.min():.4f}, {int((margins < 1e-3).sum())} below 1e-3  "
        f"{written - started:.1f} + {time.time() - written:.1f} s",
        flush=True,
    )


def main(folder, *names):
    mx.set_default_device(mx.cpu)
    unknown = set(names) - {case.name for case in CASES}
    if unknown:
        sys.exit(f"make_checkpoints.py: no such case: {', '.join(sorted(unknown))}")
    for case in CASES:
        if not names or case.name in names:
            run(case, Path(folder) / case.name)


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
