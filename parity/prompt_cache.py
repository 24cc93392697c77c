"""Compares prompt caches with mlx-lm: plain, rotating and quantised, in files of both.

    prompt_cache.py FOLDER          writes a random checkpoint, mlx-lm's caches of a prompt, and the
                                    logits of the tokens after it
    prompt_cache.py FOLDER check    reads the caches of openelm-core/tests/prompt_cache_live.rs

FOLDER/KIND.safetensors      mlx-lm's `save_prompt_cache`
FOLDER/expected.safetensors  KIND: logits [L, V] of the later tokens, all float32
FOLDER/expected.json         the tokens, the lengths of the passes, and the kinds
FOLDER/KIND.ours.safetensors and ours.safetensors are the test's, in the same formats

mlx-lm's RoPE is given its periods (see make_checkpoints.py), so that the caches differ by the order
of sums only.
"""

import json
import os
import sys
from pathlib import Path

# The preloaded BLAS is for this process, not for the compiler started by MLX.
os.environ.pop("LD_PRELOAD", None)

import mlx.core as mx
import numpy as np
from make_checkpoints import Case, ExactRope, config_of, write_checkpoint
from mlx_lm.generate import maybe_quantize_kv_cache
from mlx_lm.models.cache import load_prompt_cache, make_prompt_cache, save_prompt_cache
from mlx_lm.utils import load_model

CASE = Case("prompt-cache", "270M", 512, [0, 5])
# The prompt's passes, then those of the later tokens.
PROMPT_CHUNK, PROMPT = 24, 90
LATER = [1, 1, 7, 1, 1, 1, 9, 1]
KINDS = {
    "plain": {},
    "rotating": {"max_kv_size": 40},
    "room": {"max_kv_size": 400},
    "eight_bits": {"kv_bits": 8},
    "four_bits": {"kv_bits": 4, "kv_group_size": 32},
}
# Largest difference of a logit. A quantised value may round to the next one.
BOUNDS = {"eight_bits": 1e-2, "four_bits": 2e-1}
BOUND = 1e-4


def load(folder):
    model, config = load_model(folder / "model")
    for layer in model.layers:
        layer.attn.rope = ExactRope(config["head_dim"], config["rope_freq_constant"])
    return model


def logits_of(model, tokens, lengths, cache, kind):
    """Logits [L, V] of passes of the given lengths."""
    parts = []
    for length in lengths:
        parts.append(model(mx.array(tokens[:length])[None], cache=cache)[0])
        tokens = tokens[length:]
        bits, group = kind.get("kv_bits"), kind.get("kv_group_size", 64)
        maybe_quantize_kv_cache(cache, 0, group, bits)
    logits = mx.concatenate(parts)
    mx.eval(logits, [c.state for c in cache])
    return logits


def write(folder):
    config = config_of(CASE)
    write_checkpoint(CASE, config, folder / "model")
    model = load(folder)
    rng = np.random.default_rng(7)
    tokens = [1] + rng.integers(3, CASE.vocab, PROMPT + sum(LATER) - 1).tolist()
    prompt, later = tokens[:PROMPT], tokens[PROMPT:]
    chunks = [min(PROMPT_CHUNK, PROMPT - at) for at in range(0, PROMPT, PROMPT_CHUNK)]
    expected = {}
    for name, kind in KINDS.items():
        cache = make_prompt_cache(model, kind.get("max_kv_size"))
        logits_of(model, prompt, chunks, cache, kind)
        metadata = {"model": "model", "tokenizer_config": json.dumps({"trust_remote_code": False})}
        save_prompt_cache(str(folder / f"{name}.safetensors"), cache, metadata)
        expected[name] = logits_of(model, later, LATER, cache, kind)
    mx.save_safetensors(str(folder / "expected.safetensors"), expected)
    facts = {
        "prompt": prompt,
        "later": later,
        "prefill_chunk": PROMPT_CHUNK,
        "passes": LATER,
        "kinds": KINDS,
        "bounds": {name: BOUNDS.get(name, BOUND) for name in KINDS},
    }
    (folder / "expected.json").write_text(json.dumps(facts) + "\n")


def check(folder):
    model = load(folder)
    facts = json.loads((folder / "expected.json").read_text())
    ours = mx.load(str(folder / "ours.safetensors"))
    expected = mx.load(str(folder / "expected.safetensors"))
    failed = []
    for name, kind in KINDS.items():
        path = str(folder / f"{name}.ours.safetensors")
        cache, metadata = load_prompt_cache(path, return_metadata=True)
        # `mlx_lm.generate --prompt-cache-file` reads both.
        assert metadata["model"] == "model", metadata
        assert json.loads(metadata["tokenizer_config"]) == {}, metadata
        theirs, _ = load_prompt_cache(str(folder / f"{name}.safetensors"), return_metadata=True)
        assert [type(c) for c in cache] == [type(c) for c in theirs]
        logits = logits_of(model, facts["later"], LATER, cache, kind)
        from_ours = mx.abs(logits - ours[name]).max().item()
        from_own = mx.abs(logits - expected[name]).max().item()
        print(f"{name:<10} mlx-lm after our file: {from_ours:.1e} from ours, {from_own:.1e} from its own")
        if max(from_ours, from_own) > facts["bounds"][name]:
            failed.append(name)
    if failed:
        sys.exit(f"prompt_cache.py: out of bounds: {', '.join(failed)}")


def main(folder, mode="write"):
    mx.set_default_device(mx.cpu)
    {"write": write, "check": check}[mode](Path(folder))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    main(*sys.argv[1:])
