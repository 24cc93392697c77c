"""Runs the steps of main.rs with mlx-lm: `mlx_lm_steps.py KIND FOLDER STEPS`.

Fine-tuning is mlx-lm's `train`; pre-training is the compiled step of bench/pretrain.py. Both have
float32 masters where openelm has them, except full fine-tuning, which mlx-lm runs in bfloat16.
"""

import sys
from functools import partial
from pathlib import Path

import mlx.core as mx
import mlx.nn as nn
import mlx.optimizers as optim
from mlx.utils import tree_map
from mlx_lm.generate import generate_step
from mlx_lm.tuner import trainer
from mlx_lm.tuner.utils import linear_to_lora_layers
from mlx_lm.utils import load_model

ROWS, LENGTH = 4, 32
TOKENS = [3 + i * 7 % 40 for i in range(LENGTH + 1)]


class Silent:
    """In place of mlx-lm's display."""

    def __getattr__(self, _name):
        return lambda *_arguments, **_options: None

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        return False


def decode(model, steps):
    for _ in generate_step(mx.array([1, 5, 9, 14]), model, max_tokens=steps):
        pass


def finetune(model, kind, steps):
    model.freeze()
    if kind == "full":
        for layer in model.layers:
            layer.unfreeze()
    else:
        settings = {"rank": 8, "scale": 20.0, "dropout": 0.0}
        linear_to_lora_layers(model, len(model.layers), settings, use_dora=kind == "dora")
    # The file of the adapter is of no use here.
    mx.save_safetensors = lambda *_arguments: None
    trainer.TrainUI = lambda *_arguments, **_options: Silent()
    batch = (mx.array([TOKENS] * ROWS), mx.array([[1, LENGTH]] * ROWS))
    batches = lambda **_options: iter(lambda: batch, None)
    arguments = trainer.TrainingArgs(batch_size=ROWS, iters=steps, steps_per_report=10**6)
    optimizer = optim.Adam(learning_rate=1e-5)
    trainer.train(model, optimizer, [TOKENS] * ROWS, args=arguments, iterate_batches=batches)


def pretrain(model, steps):
    """float32 parameters, computed in bfloat16, as openelm's."""
    model.update(tree_map(lambda x: x.astype(mx.float32), model.parameters()))
    adamw = lambda decay: optim.AdamW(1e-3, [0.9, 0.95], 1e-8, decay, bias_correction=True)
    optimizer = optim.MultiOptimizer([adamw(0.1), adamw(0.0)], [lambda _, weight: weight.ndim > 1])
    positions = mx.arange(LENGTH)
    causal = (positions[:, None] >= positions[None])[None, None]
    parameters = model.trainable_parameters()

    def loss_of(parameters, inputs, targets, counts, documents):
        model.update(tree_map(lambda x: x.astype(mx.bfloat16), parameters))
        mask = causal & (documents[:, None, :, None] == documents[:, None, None, :])
        x = model.transformer.token_embeddings(inputs)
        for layer in model.transformer.layers:
            x = layer(x, mask)
        logits = model.transformer.token_embeddings.as_linear(model.transformer.norm(x))
        logits = logits.astype(mx.float32)
        every = mx.logsumexp(logits, axis=-1)
        at = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
        return ((every - at + 1e-4 * every.square()) * counts).sum() / counts.sum()

    state = [parameters, optimizer.state]
    optimizer.init(parameters)

    @partial(mx.compile, inputs=state, outputs=state)
    def step(*batch):
        loss, gradients = mx.value_and_grad(loss_of)(state[0], *batch)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        state[0] = optimizer.apply_gradients(gradients, state[0])
        return loss

    tokens = mx.array([TOKENS] * ROWS)
    documents = mx.array([[int(i >= LENGTH // 2) for i in range(LENGTH + 1)]] * ROWS)
    counts = (documents[:, 1:] == documents[:, :-1]).astype(mx.float32)
    batch = (tokens[:, :-1], tokens[:, 1:], counts, documents[:, :-1])
    mx.eval(batch)
    for _ in range(steps):
        loss = step(*batch)
        mx.eval(loss, state)


def main(kind, folder, steps):
    model, _ = load_model(Path(folder))
    model.set_dtype(mx.bfloat16)
    mx.eval(model.parameters())
    if kind == "decode":
        decode(model, steps)
    elif kind == "pretrain":
        pretrain(model, steps)
    else:
        finetune(model, kind, steps)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
