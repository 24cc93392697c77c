"""Pre-trains a small random OpenELM with mlx-lm's network and MLX's optimizer, for openelm-core.

    pretrain.py FOLDER

mlx-lm's model, MLX's AdamW, `clip_grad_norm` and automatic differentiation do the work; the loss,
the attention mask of packed rows and the learning rate are written here from CoreNet's formulas
(`cross_entropy.py`, `scheduler/cosine.py`). parity/run.sh runs it. FOLDER becomes

base/                 the model in Apple's Hugging Face layout, in float32
index.json            the cases' names; written last

and of each case

case.json             "steps": by step, "batches" of "sequences" ({"tokens", "starts"}; a step's
                      batches make one update), "loss" (over all targets, z-loss in it), "z_loss",
                      "norm" (before clipping), "rate", "targets"; and the settings
after-1.safetensors, after-20.safetensors   the weights after as many steps
start/                the adapter before the first step, of the cases of CoreNet's PEFT recipes
"""

import json
import math
import os
import sys
from pathlib import Path

os.environ.pop("LD_PRELOAD", None)

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
import numpy as np
from mlx.utils import tree_flatten, tree_map
from mlx_lm.models import openelm
from mlx_lm.models.openelm import Model, ModelArgs
from mlx_lm.tuner.utils import linear_to_lora_layers

attention = openelm.scaled_dot_product_attention
STEPS, LENGTH, VOCAB = 20, 144, 211
CONFIG = {
    "model_type": "openelm",
    "head_dim": 16,
    "num_transformer_layers": 3,
    "model_dim": 64,
    "vocab_size": VOCAB,
    "ffn_dim_divisor": 16,
    "num_query_heads": [2, 4, 4],
    "num_kv_heads": [1, 2, 2],
    "ffn_multipliers": [0.5, 2.25, 4.0],
    "qkv_multipliers": [0.5, 1.0],
    "num_gqa_groups": 2,
    "max_context_length": 64,
    "normalize_qk_projections": True,
    "ffn_with_glu": True,
    "rope_freq_constant": 10000,
    "rope_max_length": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
PROJECTIONS = [("attn", "qkv_proj"), ("attn", "out_proj"), ("ffn", "proj_1"), ("ffn", "proj_2")]
CASES = {
    "truncate": {},
    "packed": {"packed": True},
    "packed-accumulated": {"packed": True, "accumulate": 3, "clip_norm": 0.25},
    "smoothed": {"packed": True, "label_smoothing": 0.1, "z_loss": 1e-2, "clip_norm": 0.0},
    "untied": {"tied": False},
    "autocast": {"packed": True, "autocast": True},
    "recipe-lora": {"adapter": "lora", "weight_decay": 0.0, "learning_rate": 3e-4},
    "recipe-dora": {"adapter": "dora", "weight_decay": 0.0, "learning_rate": 3e-4},
}


def settings_of(case):
    defaults = {
        "packed": False,
        "accumulate": 1,
        "clip_norm": 1.0,
        "z_loss": 1e-4,
        "label_smoothing": 0.0,
        "weight_decay": 0.1,
        "learning_rate": 2e-3,
        "warmup": 5,
        "tied": True,
        "autocast": False,
        "adapter": None,
    }
    return defaults | case


def rate_of(step, settings):
    """CoreNet's learning rate of the update with index `step`, from 0."""
    most, least, start = settings["learning_rate"], 0.1 * settings["learning_rate"], 1e-6
    if step < settings["warmup"]:
        rate = start + step * (most - start) / settings["warmup"]
    else:
        period = STEPS - settings["warmup"] + 1
        turn = math.pi * (step - settings["warmup"]) / period
        rate = least + 0.5 * (most - least) * (1 + math.cos(turn))
    return round(max(0.0, rate), 8)


def sequences(random, packed, count):
    made = []
    for _ in range(count):
        if packed:
            tokens, starts = [], []
            if random.random() < 0.5:
                # The rest of a document that began in another row.
                tokens = random.integers(3, VOCAB, random.integers(1, 9)).tolist() + [2]
            while len(tokens) < LENGTH + 1:
                starts.append(len(tokens))
                text = random.integers(3, VOCAB, random.integers(2, 20)).tolist()
                tokens += [1, *text, 2]
            tokens = tokens[: LENGTH + 1]
        else:
            starts = [0]
            tokens = [1, *random.integers(3, VOCAB, random.integers(5, LENGTH + 1)).tolist()]
        made.append({"tokens": tokens, "starts": [s for s in starts if s < len(tokens)]})
    return made


def arrays_of(batch):
    """Inputs, targets, the targets' weights, and the inputs' document numbers."""
    inputs, targets, counts, documents = [], [], [], []
    for sequence in batch:
        tokens = sequence["tokens"] + [0] * (LENGTH + 1 - len(sequence["tokens"]))
        of = np.cumsum([i in sequence["starts"] for i in range(LENGTH + 1)])
        real = np.arange(LENGTH + 1) < len(sequence["tokens"])
        inputs.append(tokens[:-1])
        targets.append(tokens[1:])
        counts.append(real[1:] & (of[1:] == of[:-1]))
        documents.append(of[:-1])
    return (
        mx.array(inputs),
        mx.array(targets),
        mx.array(np.array(counts)),
        mx.array(np.array(documents)),
    )


def half(x):
    return x.astype(mx.bfloat16)


def autocast(model):
    """Products in bfloat16 and the rest in float32, as PyTorch's autocast computes."""

    class Linear(nn.Linear):
        def __call__(self, x):
            return half(x) @ half(self.weight).T

    class Embedding(nn.Embedding):
        def as_linear(self, x):
            return half(x) @ half(self.weight).T

    for _, module in model.named_modules():
        if type(module) is nn.Linear:
            module.__class__ = Linear
        elif type(module) is nn.Embedding:
            module.__class__ = Embedding


def half_attention(queries, keys, values, **more):
    more.pop("cache")
    attention = mx.fast.scaled_dot_product_attention
    return attention(half(queries), half(keys), half(values), **more)


def adapt(model, kind, folder):
    """CoreNet's adapters: of all projections, and LoRA of the embedding; written to `folder`."""
    keys = [f"{part}.{name}" for part, name in PROJECTIONS]
    if kind == "lora":
        keys.append("transformer.token_embeddings")
    parameters = {"rank": 4, "scale": 1.0, "dropout": 0.0, "keys": keys}
    model.freeze()
    linear_to_lora_layers(model, len(model.layers), parameters, use_dora=kind == "dora")
    mx.eval(model.parameters())
    folder.mkdir()
    config = {
        "fine_tune_type": kind,
        "num_layers": -1,
        "lora_parameters": parameters,
        "tied_head": False,
    }
    (folder / "adapter_config.json").write_text(json.dumps(config))
    weights = dict(tree_flatten(model.trainable_parameters()))
    mx.save_safetensors(str(folder / "adapters.safetensors"), weights)


def loss_of(model, inputs, targets, counts, documents, settings):
    """Sums over the targets of complete rows: padding has a weight of 0."""
    positions = mx.arange(inputs.shape[1])
    mask = positions[:, None] >= positions[None]
    mask = mask[None, None] & (documents[:, None, :, None] == documents[:, None, None, :])
    network = model.transformer
    x = network.token_embeddings(inputs)
    for layer in network.layers:
        x = layer(x, mask)
    x = network.norm(x)
    embedding = network.token_embeddings
    # CoreNet's head has no adapter.
    embedding = getattr(embedding, "embedding", embedding)
    head = embedding.as_linear if settings["tied"] else model.lm_head
    logits = head(x).astype(mx.float32)
    every = mx.logsumexp(logits, axis=-1)
    found = nn.losses.cross_entropy(
        logits, targets, label_smoothing=settings["label_smoothing"], reduction="none"
    )
    entropy = mx.where(counts, found, 0.0).sum()
    squares = mx.where(counts, every.square(), 0.0).sum()
    z_loss = settings["z_loss"] * squares
    return entropy + z_loss, z_loss


def train(folder, settings, start):
    model = network(settings["tied"])
    model.load_weights(list(start[settings["tied"]].items()))
    openelm.scaled_dot_product_attention = attention
    if settings["autocast"]:
        autocast(model)
        openelm.scaled_dot_product_attention = half_attention
    if settings["adapter"]:
        adapt(model, settings["adapter"], folder / "start")
    betas, eps = [0.9, 0.95], 1e-8
    adamw = lambda decay: optim.AdamW(1.0, betas, eps, decay, bias_correction=True)
    parts = [adamw(settings["weight_decay"]), adamw(0.0)]
    optimizer = optim.MultiOptimizer(parts, [lambda _, weight: weight.ndim > 1])
    if settings["adapter"]:
        # A list of layers with frozen ones cannot be divided; nothing decays.
        optimizer, parts = parts[1], parts[1:]
    random = np.random.default_rng(7)
    steps = []
    for step in range(STEPS):
        counts = [int(random.integers(2, 5)) for _ in range(settings["accumulate"])]
        batches = [sequences(random, settings["packed"], count) for count in counts]
        sums, targets, gradients = [0.0, 0.0], 0, None
        for batch in batches:
            arrays = arrays_of(batch)
            found, gradient = nn.value_and_grad(model, loss_of)(model, *arrays, settings)
            targets += int(arrays[2].sum())
            sums = [float(a) + b for a, b in zip(found, sums)]
            gradients = gradient if gradients is None else tree_map(mx.add, gradients, gradient)
        gradients = tree_map(lambda g: g / targets, gradients)
        norm = math.sqrt(sum(float(g.square().sum()) for _, g in tree_flatten(gradients)))
        if settings["clip_norm"]:
            gradients, _ = optim.clip_grad_norm(gradients, settings["clip_norm"])
        rate = rate_of(step, settings)
        for one in parts:
            one.learning_rate = rate
        optimizer.update(model, gradients)
        mx.eval(model.parameters(), optimizer.state)
        steps.append(
            {
                "batches": batches,
                "loss": sums[0] / targets,
                "z_loss": sums[1] / targets,
                "norm": norm,
                "rate": rate,
                "targets": targets,
            }
        )
        if step + 1 in (1, STEPS):
            weights = dict(tree_flatten(model.trainable_parameters()))
            mx.save_safetensors(str(folder / f"after-{step + 1}.safetensors"), weights)
    return steps


def network(tied):
    return Model(ModelArgs.from_dict(CONFIG | {"share_input_output_layers": tied}))


def main(folder):
    folder.mkdir(parents=True)
    mx.random.seed(3)
    start = {}
    for tied in (True, False):
        weights = dict(tree_flatten(network(tied).parameters()))
        for name, weight in weights.items():
            spread = 0.1 if weight.ndim == 1 else weight.shape[-1] ** -0.5
            weights[name] = mx.random.normal(weight.shape) * spread + (weight.ndim == 1)
        mx.eval(weights)
        start[tied] = weights
        base = folder / ("base" if tied else "base-untied")
        base.mkdir()
        mx.save_safetensors(str(base / "model.safetensors"), weights, {"format": "mlx"})
        config = CONFIG | {"share_input_output_layers": tied}
        (base / "config.json").write_text(json.dumps(config, indent=1))
    for name, case in CASES.items():
        settings = settings_of(case)
        (folder / name).mkdir()
        steps = train(folder / name, settings, start)
        (folder / name / "case.json").write_text(json.dumps(settings | {"steps": steps}))
        print(f"{name:20} loss {steps[0]['loss']:.4f} to {steps[-1]['loss']:.4f}", file=sys.stderr)
    (folder / "index.json").write_text(json.dumps(list(CASES)))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
