"""Writes adapters with Hugging Face PEFT, and checks adapters that PEFT reads.

    peft_files.py make FIXTURES            writes FIXTURES (openelm-core/tests/fixtures/peft)
    peft_files.py check FIXTURES WRITTEN   loads WRITTEN/NAME, written by OpenELM, with PEFT

FIXTURES holds `base`, a model of two layers with random float32 weights, and for each adapter NAME

adapter_config.json, adapter_model.safetensors   written by `save_pretrained`
merged.safetensors                               the matrices changed by `merge_and_unload`

`check` compares PEFT's merged weights of WRITTEN/NAME with FIXTURES/NAME/merged.safetensors.

Needs torch, safetensors and peft (version 0.21.2 for the fixtures). There is no forward pass: the
modules are a plain tree with OpenELM's names.
"""

import json
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn

D, V, Q, KV, HEAD, FFN = 16, 24, 2, 1, 4, 16
LINEAR = ["qkv_proj", "out_proj", "proj_1", "proj_2"]
CONFIG = {
    "model_type": "openelm",
    "architectures": ["OpenELMForCausalLM"],
    "model_dim": D,
    "head_dim": HEAD,
    "num_transformer_layers": 2,
    "num_query_heads": [Q, Q],
    "num_kv_heads": [KV, KV],
    "num_gqa_groups": Q // KV,
    "qkv_multipliers": [0.5, 0.5],
    "ffn_multipliers": [1.0, 1.0],
    "ffn_dim_divisor": 16,
    "ffn_with_glu": True,
    "activation_fn_name": "swish",
    "normalization_layer_name": "rms_norm",
    "normalize_qk_projections": True,
    "share_input_output_layers": False,
    "rope_freq_constant": 10000,
    "rope_max_length": 64,
    "max_context_length": 32,
    "vocab_size": V,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.02,
    "torch_dtype": "float32",
}
ADAPTERS = {
    "lora": dict(r=3, lora_alpha=16, target_modules=LINEAR),
    "rslora": dict(r=3, lora_alpha=5, use_rslora=True, target_modules=["qkv_proj", "out_proj"]),
    "dora": dict(r=2, lora_alpha=3, use_dora=True, target_modules=LINEAR),
    "embedding": dict(r=2, lora_alpha=8, target_modules=["token_embeddings", "out_proj"]),
    # Two patterns match layer 0's qkv_proj.
    "patterns": dict(
        r=2,
        lora_alpha=4,
        target_modules=["qkv_proj", "proj_1"],
        rank_pattern={"qkv_proj": 3},
        alpha_pattern={"attn.qkv_proj": 11, r"transformer\.layers\.0.*_proj": 7, "1.ffn.*": 1},
    ),
}


class Tree(nn.Module):
    """Modules by name, with the methods required by PEFT's causal language model class."""

    def prepare_inputs_for_generation(self):
        raise NotImplementedError


def linear(rows, columns):
    return nn.Linear(columns, rows, bias=False)


def base():
    """OpenELM's modules, with default weights."""
    layers = []
    for _ in range(2):
        tree = Tree()
        tree.attn, tree.ffn = Tree(), Tree()
        tree.attn_norm, tree.ffn_norm = nn.RMSNorm(D), nn.RMSNorm(D)
        tree.attn.qkv_proj = linear((Q + 2 * KV) * HEAD, D)
        tree.attn.out_proj = linear(D, Q * HEAD)
        tree.attn.q_norm, tree.attn.k_norm = nn.RMSNorm(HEAD), nn.RMSNorm(HEAD)
        tree.ffn.proj_1 = linear(2 * FFN, D)
        tree.ffn.proj_2 = linear(D, FFN)
        layers.append(tree)
    model = Tree()
    model.transformer = Tree()
    model.transformer.token_embeddings = nn.Embedding(V, D)
    model.transformer.layers = nn.ModuleList(layers)
    model.transformer.norm = nn.RMSNorm(D)
    model.lm_head = linear(V, D)
    return model


def randomise(parameters, generator):
    for name, parameter in parameters:
        noise = torch.randn(parameter.shape, generator=generator)
        if "norm" in name or "magnitude" in name:
            parameter.data.mul_(1 + 0.2 * noise)
        else:
            parameter.data.copy_(0.3 * noise)


def reloaded(folder, weights):
    """The matrices changed by the adapter in `folder`, merged by PEFT."""
    model = base()
    model.load_state_dict(weights)
    after = PeftModel.from_pretrained(model, folder).merge_and_unload().state_dict()
    assert after.keys() == weights.keys()
    return {name: t.contiguous() for name, t in after.items() if not t.equal(weights[name])}


def make(fixtures):
    generator = torch.Generator().manual_seed(20240422)
    model = base()
    randomise(model.named_parameters(), generator)
    weights = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    folder = fixtures / "base"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(CONFIG, indent=2) + "\n")
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    for name, settings in ADAPTERS.items():
        model = base()
        model.load_state_dict(weights)
        model = get_peft_model(model, LoraConfig(task_type="CAUSAL_LM", **settings))
        added = [(key, p) for key, p in model.named_parameters() if "lora_" in key]
        randomise(added, generator)
        folder = fixtures / name
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryDirectory() as saved:
            model.save_pretrained(saved)
            for file in ["adapter_config.json", "adapter_model.safetensors"]:
                shutil.copy(Path(saved) / file, folder / file)
        # From the files, because PEFT sorts the patterns when it saves them, and the first match
        # applies.
        changed = reloaded(folder, weights)
        save_file(changed, folder / "merged.safetensors", {"format": "pt"})
        print(f"{name}: {len(added)} tensors change {len(changed)} matrices")


def check(fixtures, written):
    weights = load_file(fixtures / "base" / "model.safetensors")
    for name in ADAPTERS:
        found = reloaded(written / name, weights)
        wanted = load_file(fixtures / name / "merged.safetensors")
        assert found.keys() == wanted.keys(), f"{name}: {found.keys()} for {wanted.keys()}"
        off = max(((found[k] - wanted[k]).norm() / wanted[k].norm()).item() for k in wanted)
        assert off <= 1e-6, f"{name}: merged weights differ by {off:.1e}"
        print(f"{name}: {len(found)} matrices, off by at most {off:.1e}")


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["make", fixtures]:
            make(Path(fixtures))
        case ["check", fixtures, written]:
            check(Path(fixtures), Path(written))
        case _:
            sys.exit(__doc__)
