"""Comparison of two model folders: tensors, configuration, and the results of mlx-lm."""

import functools
import json

import mlx.core as mx
import numpy as np
from mlx_lm import load
from mlx_lm.models.cache import make_prompt_cache
from mlx_lm.models.openelm import ModelArgs

from convert_cases import FULL
from make_checkpoints import Case, prompt_of

TEXT = "Once upon a time there was a fox who could count to 7, or so he said."
PROMPT, GREEDY = 100, 32
# Tokens for comparisons of two folders, often in 16 bits, which are slow on a CPU.
SAME_GREEDY = GREEDY if FULL else 8


def tensors_of(folder):
    """All tensors by name. Checks that the files match an index, if there is one."""
    files = sorted(folder.glob("model*.safetensors"))
    assert files, f"{folder}: no model*.safetensors"
    tensors, where = {}, {}
    for file in files:
        for name, tensor in mx.load(str(file)).items():
            assert name not in tensors, f"{name} is in two files"
            tensors[name], where[name] = tensor, file.name
    index = folder / "model.safetensors.index.json"
    if index.exists():
        index = json.loads(index.read_text())
        assert index["weight_map"] == where, "the index differs from the files"
        size = sum(tensor.nbytes for tensor in tensors.values())
        assert index["metadata"]["total_size"] == size, "total_size differs from the size"
    return tensors


def same_bits(a, b):
    bytes_of = lambda tensor: tensor.reshape(-1).view(mx.uint8)
    return (
        a.dtype == b.dtype
        and a.shape == b.shape
        and mx.array_equal(bytes_of(a), bytes_of(b)).item()
    )


def assert_same_tensors(ours, theirs, detail):
    """The same names, types, shapes and bits."""
    missing, more = theirs.keys() - ours.keys(), ours.keys() - theirs.keys()
    assert not missing and not more, f"missing {sorted(missing)}, unexpected {sorted(more)}"
    different = [name for name in theirs if not same_bits(ours[name], theirs[name])]
    assert not different, f"{len(different)} of {len(theirs)} differ, such as {different[0]}"
    packed = sum(name.endswith(".scales") for name in theirs)
    detail.append(f"{len(theirs)} tensors bit-identical, {packed} matrices packed")
    return packed


def read_config(folder):
    return json.loads((folder / "config.json").read_text())


def assert_same_config(ours, theirs, detail):
    """The same quantization blocks and the same architecture."""
    blocks = ["quantization", "quantization_config"]
    keys = [key for key in ModelArgs.__dataclass_fields__ if key in theirs]
    assert len(keys) >= 10, f"mlx-lm's config.json has only {keys}"
    for key in blocks + keys:
        assert ours.get(key) == theirs.get(key), f"{key} is {ours.get(key)}, not {theirs.get(key)}"
    detail.append(f"{theirs.get('quantization') or 'no quantization block'}, {len(keys)} sizes")


def prompt_for(config):
    case = Case("", "", config["vocab_size"])
    return prompt_of(np.random.default_rng(100), case, PROMPT)


def run(model, prompt, greedy):
    """Logits of the prompt in float32, the greedy ids after it, and the smallest margin of an id
    over the second-best one."""
    cache = make_prompt_cache(model)
    logits = model(mx.array(prompt)[None], cache=cache)[0].astype(mx.float32)
    mx.eval(logits)
    ids, margin, last = [], float("inf"), logits[-1]
    for _ in range(greedy):
        second, first = np.sort(np.array(last))[-2:]
        margin = min(margin, float(first - second))
        ids.append(int(mx.argmax(last)))
        last = model(mx.array([[ids[-1]]]), cache=cache)[0, -1].astype(mx.float32)
    return logits, ids, margin


@functools.cache
def computed(folder):
    """mlx-lm's logits, greedy ids, tokenizer and model for a folder (cached)."""
    model, tokenizer = load(str(folder))
    logits, ids, _ = run(model, prompt_for(read_config(folder)), SAME_GREEDY)
    return logits, ids, tokenizer, model


def assert_same_results(ours, theirs, detail):
    """mlx-lm gives the same logits, greedy ids and text for both folders."""
    (a, a_ids, a_tokenizer, _), (b, b_ids, b_tokenizer, _) = computed(ours), computed(theirs)
    assert bool(mx.isfinite(b).all()) and float(b.std()) > 0.01, "logits without variation"
    assert a.shape == b.shape, f"logits of shape {a.shape}, not {b.shape}"
    assert mx.array_equal(a, b).item(), f"logits differ by {float(mx.abs(a - b).max()):.1e}"
    assert a_ids == b_ids and len(b_ids) == SAME_GREEDY, f"greedy {a_ids}, not {b_ids}"
    ids = b_tokenizer.encode(TEXT)
    assert a_tokenizer.encode(TEXT) == ids and len(ids) > 10, "the tokenizers differ"
    assert a_tokenizer.decode(ids) == b_tokenizer.decode(ids), "the tokenizers decode differently"
    assert a_tokenizer.eos_token_ids == b_tokenizer.eos_token_ids, "the EOS tokens differ"
    detail.append(f"logits [{PROMPT}, {a.shape[1]}] and {SAME_GREEDY} greedy ids in mlx-lm")
