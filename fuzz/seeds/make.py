"""Writes the seeds in this folder: a tiny OpenELM model as safetensors and GGUF files.

    PYTHONPATH=.mlx/oracle python3 fuzz/seeds/make.py target/release/openelm
"""

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, normalizers

HERE = Path(__file__).resolve().parent
CONFIG = {
    "model_type": "openelm",
    "model_dim": 32,
    "num_transformer_layers": 2,
    "head_dim": 16,
    "num_query_heads": [2, 2],
    "num_kv_heads": [1, 1],
    "ffn_multipliers": [1.0, 2.0],
    "ffn_dim_divisor": 32,
    "ffn_with_glu": True,
    "normalize_qk_projections": True,
    "share_input_output_layers": True,
    "vocab_size": 272,
    "max_context_length": 64,
    "rope_freq_constant": 10000,
    "rope_max_length": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}


def weights():
    random = np.random.default_rng(0)
    shapes = {"transformer.token_embeddings.weight": (272, 32), "transformer.norm.weight": (32,)}
    for i, inner in enumerate([32, 64]):
        layer = f"transformer.layers.{i}"
        shapes[f"{layer}.attn.qkv_proj.weight"] = (64, 32)
        shapes[f"{layer}.attn.q_norm.weight"] = (16,)
        shapes[f"{layer}.attn.k_norm.weight"] = (16,)
        shapes[f"{layer}.attn.out_proj.weight"] = (32, 32)
        shapes[f"{layer}.attn_norm.weight"] = (32,)
        shapes[f"{layer}.ffn_norm.weight"] = (32,)
        shapes[f"{layer}.ffn.proj_1.weight"] = (2 * inner, 32)
        shapes[f"{layer}.ffn.proj_2.weight"] = (32, inner)
    return {name: random.normal(size=shape).astype(np.float16) for name, shape in shapes.items()}


def tokenizer():
    pieces = ["<unk>", "<s>", "</s>"] + [f"<0x{byte:02X}>" for byte in range(256)]
    pieces += ["▁", "t", "h", "e", "▁t", "he", "▁the", "a", "▁a"]
    merges = [("▁", "t"), ("h", "e"), ("▁t", "he"), ("▁", "a")]
    vocabulary = {piece: i for i, piece in enumerate(pieces)}
    made = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    made.add_special_tokens(["<unk>", "<s>", "</s>"])
    made.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return made


def main():
    openelm = sys.argv[1]
    with tempfile.TemporaryDirectory() as folder:
        model = Path(folder) / "tiny"
        model.mkdir()
        (model / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
        save_file(weights(), model / "model.safetensors", {"format": "pt"})
        tokenizer().save(str(model / "tokenizer.json"))
        for name in ["config.json", "model.safetensors"]:
            shutil.copy(model / name, HERE / "safetensors" / name)
        for kind in ["f16", "q4_0"]:
            made = model.with_name(f"{kind}.gguf")
            subprocess.run([openelm, "convert", model, made, "--gguf-type", kind], check=True)
            shutil.copy(made, HERE / "gguf" / made.name)


main()
