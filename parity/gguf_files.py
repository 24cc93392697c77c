"""Checks GGUF files that `openelm convert` writes from openelm-core/tests/fixtures/tales.

    gguf_files.py OPENELM FOLDER [--llama]

Reads each file with ggml's Python package `gguf`: names, shapes, types, metadata and tokenizer, and
the bytes of every tensor compared with the package's quantisers. With --llama it also runs the
files in llama.cpp (llama-cpp-python): greedy continuations of the floating-point files must equal
openelm-core/tests/fixtures/tales/reference.json, from mlx-lm and openelm.
"""

import json
import struct
import subprocess
import sys
from pathlib import Path

import gguf
import numpy as np
from gguf import GGMLQuantizationType as Kind

TALES = Path(__file__).resolve().parent.parent / "openelm-core/tests/fixtures/tales"
KINDS = {
    "f32": (0, Kind.F32),
    "f16": (1, Kind.F16),
    "bf16": (32, Kind.BF16),
    "q8_0": (7, Kind.Q8_0),
    "q4_0": (2, Kind.Q4_0),
}
LAYER_NAMES = {
    "attn_norm": "attn_norm",
    "attn.qkv_proj": "attn_qkv",
    "attn.q_norm": "attn_q_norm",
    "attn.k_norm": "attn_k_norm",
    "attn.out_proj": "attn_output",
    "ffn_norm": "ffn_norm",
    "ffn.proj_2": "ffn_down",
}


def checkpoint():
    """The tensors of openelm-core/tests/fixtures/tales as float32, by name; they are stored in bfloat16."""
    raw = (TALES / "model.safetensors").read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header, data = json.loads(raw[8 : 8 + length]), raw[8 + length :]
    header.pop("__metadata__", None)
    tensors = {}
    for name, entry in header.items():
        assert entry["dtype"] == "BF16", name
        start, end = entry["data_offsets"]
        bits = np.frombuffer(data[start:end], np.uint16).astype(np.uint32) << 16
        tensors[name] = bits.view(np.float32).reshape(entry["shape"])
    return tensors


def expected_tensors(tensors, layers):
    expected = {
        "token_embd.weight": tensors["transformer.token_embeddings.weight"],
        "output_norm.weight": tensors["transformer.norm.weight"],
    }
    for i in range(layers):
        layer = f"transformer.layers.{i}"
        for ours, theirs in LAYER_NAMES.items():
            expected[f"blk.{i}.{theirs}.weight"] = tensors[f"{layer}.{ours}.weight"]
        gate, up = np.split(tensors[f"{layer}.ffn.proj_1.weight"], 2)
        expected[f"blk.{i}.ffn_gate.weight"] = gate
        expected[f"blk.{i}.ffn_up.weight"] = up
    return expected


def check_file(path, kind, tensors):
    file_type, tensor_kind = KINDS[kind]
    config = json.loads((TALES / "config.json").read_text())
    tokenizer = json.loads((TALES / "tokenizer.json").read_text())
    layers = config["num_transformer_layers"]
    expected = expected_tensors(tensors, layers)
    ffn = [expected[f"blk.{i}.ffn_up.weight"].shape[0] for i in range(layers)]
    reader = gguf.GGUFReader(path)
    fields = {name: field.contents() for name, field in reader.fields.items()}
    for name, value in {
        "general.architecture": "openelm",
        "general.file_type": file_type,
        "GGUF.version": 3,
        "openelm.attention.head_count": config["num_query_heads"],
        "openelm.attention.head_count_kv": config["num_kv_heads"],
        "openelm.feed_forward_length": ffn,
        "openelm.block_count": layers,
        "openelm.embedding_length": config["model_dim"],
        "openelm.attention.key_length": config["head_dim"],
        "openelm.attention.value_length": config["head_dim"],
        "openelm.rope.dimension_count": config["head_dim"],
        "openelm.rope.freq_base": config["rope_freq_constant"],
        "openelm.context_length": config["max_context_length"],
        "openelm.vocab_size": config["vocab_size"],
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": True,
    }.items():
        assert fields[name] == value, f"{kind}: {name}: expected {value}, found {fields[name]}"
    pieces = {piece: i for i, piece in enumerate(fields["tokenizer.ggml.tokens"])}
    assert pieces == tokenizer["model"]["vocab"], f"{kind}: tokens"
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert set(found) == set(expected), f"{kind}: {set(found) ^ set(expected)}"
    size = 0
    for name, values in expected.items():
        wanted = tensor_kind if values.ndim == 2 else Kind.F32
        if kind == "q4_0" and name == "token_embd.weight":
            wanted = Kind.Q8_0
        tensor = found[name]
        assert list(reversed(tensor.shape.tolist())) == list(values.shape), f"{kind}: {name}"
        assert tensor.tensor_type == wanted, f"{kind}: {name}: {tensor.tensor_type}"
        bytes_wanted = np.ascontiguousarray(gguf.quants.quantize(values, wanted)).tobytes()
        assert np.ascontiguousarray(tensor.data).tobytes() == bytes_wanted, f"{kind}: {name}"
        size += len(bytes_wanted)
    print(f"gguf: {kind}: {len(expected)} tensors, {size} bytes, equal to gguf's quantisers")


def check_llama(path, kind):
    from llama_cpp import Llama

    continuations = json.loads((TALES / "reference.json").read_text())["continuations"]
    llama = Llama(str(path), n_ctx=512, verbose=False)
    same = 0
    for case in continuations:
        ids = llama.tokenize(case["prompt"].encode(), add_bos=True)
        assert ids == case["prompt_ids"], f"{kind}: tokens of {case['prompt']!r}: {ids}"
        llama.reset()
        greedy = []
        for token in llama.generate(ids, temp=0.0, top_k=1, repeat_penalty=1.0):
            greedy.append(token)
            if len(greedy) == len(case["greedy_ids"]):
                break
        same += greedy == case["greedy_ids"]
    print(f"llama.cpp: {kind}: {same} of {len(continuations)} greedy continuations equal the reference")
    # Quantised weights differ, so their continuations are shown, not required to match.
    if not kind.startswith("q"):
        assert continuations and same == len(continuations), kind


def main():
    openelm, folder, llama = sys.argv[1], Path(sys.argv[2]), "--llama" in sys.argv[3:]
    folder.mkdir(parents=True, exist_ok=True)
    tensors = checkpoint()
    for kind in KINDS:
        path = folder / f"tales-{kind}.gguf"
        command = [openelm, "convert", TALES, path, "--gguf-type", kind, "--force", "--quiet"]
        subprocess.run(command, check=True)
        check_file(path, kind, tensors)
        if llama:
            check_llama(path, kind)


main()
