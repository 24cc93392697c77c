"""Times pre-training with `openelm pretrain` and with mlx-lm's network under MLX's optimizer.

    pretrain.py OPENELM TOKENIZER TEXT LIBMLXC

TOKENIZER is a folder with a tokenizer.json, TEXT a JSONL file of {"text"} rows. The model has six
layers of width 224 (3.3 million parameters with a vocabulary of 2,048). A step has 16 packed rows
of 256 tokens and uses CoreNet's recipe: AdamW, clipping, z-loss. mlx-lm's step is compiled
(`mx.compile`, unless COMPILE=0) and reads tokens from memory; openelm reads and tokenises TEXT
during training. The first two steps are not counted. The tools run alternately, RUNS times (3), for
STEPS steps (12), with the same BLAS and its default number of threads; memory is the peak resident
size of the process. Then openelm with one BLAS thread per process, in one process and in two
(--processes 2). Last, tokens per second of the data pipeline alone: `examples/corpus` in OPENELM's
folder.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

STEPS, RUNS = int(os.environ.get("STEPS", 12)), int(os.environ.get("RUNS", 3))
ROWS, LENGTH = 16, 256
SETTINGS = f"""
max-seq-length = {LENGTH}
batch-size = {ROWS}
micro-batch-size = {ROWS}
learning-rate = 4e-3
warmup = 10
save-every = 1000000
[model]
num_layers = 6
model_dim = 224
head_dim = 64
num_gqa_groups = 2
ffn_dim_divisor = 32
max_context_length = 512
"""


def run(command, environment=None):
    """Returns the output and the peak resident size in bytes."""
    with tempfile.TemporaryFile("w+") as output:
        child = subprocess.Popen(
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | (environment or {})
        )
        _, status, usage = os.wait4(child.pid, 0)
        output.seek(0)
        text = output.read()
    if status != 0:
        sys.exit(f"{command[0]} failed:\n{text[-2000:]}")
    return text, usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def ours(openelm, settings, folder, *more, environment=None):
    output = folder / "ours"
    shutil.rmtree(output, ignore_errors=True)
    text, memory = run(
        [openelm, "pretrain", "--config", settings, "--output", output, "--iters", str(STEPS), "--json", *more],
        environment,
    )
    events = [json.loads(line) for line in text.splitlines() if line.startswith("{")]
    steps = [event for event in events if event["event"] == "step"][2:]
    seconds = [step["targets"] / step["tokens_per_second"] for step in steps]
    return sum(step["targets"] for step in steps) / sum(seconds), memory


def theirs(config, libmlxc):
    command = [sys.executable, __file__, "--theirs", config]
    text, memory = run(command, {"LD_PRELOAD": libmlxc, "HF_HUB_OFFLINE": "1"})
    return float(text.split()[-1]), memory


def train_theirs(config):
    """Prints targets per second."""
    # The preloaded BLAS is for this process, not for the compiler started by MLX.
    os.environ.pop("LD_PRELOAD", None)
    from functools import partial

    import mlx.core as mx
    import mlx.nn as nn
    import mlx.optimizers as optim
    from mlx_lm.models.openelm import Model, ModelArgs

    settings = json.loads(Path(config).read_text())
    model = Model(ModelArgs.from_dict(settings))
    adamw = lambda decay: optim.AdamW(1e-3, [0.9, 0.95], 1e-8, decay, bias_correction=True)
    optimizer = optim.MultiOptimizer([adamw(0.1), adamw(0.0)], [lambda _, weight: weight.ndim > 1])
    positions = mx.arange(LENGTH)
    causal = (positions[:, None] >= positions[None])[None, None]

    def loss_of(inputs, targets, counts, documents):
        mask = causal & (documents[:, None, :, None] == documents[:, None, None, :])
        x = model.transformer.token_embeddings(inputs)
        for layer in model.transformer.layers:
            x = layer(x, mask)
        logits = model.transformer.token_embeddings.as_linear(model.transformer.norm(x))
        every = mx.logsumexp(logits, axis=-1)
        at = mx.take_along_axis(logits, targets[..., None], axis=-1).squeeze(-1)
        return ((every - at + 1e-4 * every.square()) * counts).sum() / counts.sum()

    state = [model.state, optimizer.state]
    optimizer.init(model.trainable_parameters())

    def step(*batch):
        loss, gradients = nn.value_and_grad(model, loss_of)(*batch)
        gradients, _ = optim.clip_grad_norm(gradients, 1.0)
        optimizer.update(model, gradients)
        return loss

    if os.environ.get("COMPILE", "1") == "1":
        step = partial(mx.compile, inputs=state, outputs=state)(step)

    def batch():
        tokens = mx.random.randint(3, settings["vocab_size"], (ROWS, LENGTH + 1))
        # Documents of 180 tokens on average.
        documents = (mx.random.uniform(shape=(ROWS, LENGTH + 1)) < 1 / 180).cumsum(axis=1)
        counts = (documents[:, 1:] == documents[:, :-1]).astype(mx.float32)
        return tokens[:, :-1], tokens[:, 1:], counts, documents[:, :-1]

    targets = 0
    for nth in range(STEPS):
        arrays = batch()
        mx.eval(arrays)
        if nth == 2:
            started = time.perf_counter()
        loss = step(*arrays)
        mx.eval(loss, state)
        targets += int(arrays[2].sum()) if nth >= 2 else 0
    print(targets / (time.perf_counter() - started))


def tokenise(openelm, tokenizer, text):
    """Tokens per second, from file to sequences."""
    printed, _ = run([Path(openelm).parent / "examples/corpus", tokenizer, text])
    return float(printed.split()[-2])


def main(openelm, tokenizer, text, libmlxc):
    folder = Path(tempfile.mkdtemp(prefix="openelm-bench-"))
    settings = folder / "run.toml"
    data = f"data = [{json.dumps(str(Path(text).resolve()))}]\n"
    data += f"tokenizer = {json.dumps(str(Path(tokenizer).resolve()))}\n"
    settings.write_text(data + SETTINGS)
    run([openelm, "pretrain", "--config", settings, "--output", folder / "model", "--iters", "1", "--quiet"])
    config = folder / "model/model/config.json"
    results = {"ours": [], "mlx_lm": [], "one_process": [], "two_processes": []}
    one_thread = {"OPENBLAS_NUM_THREADS": "1"}
    for _ in range(RUNS):
        results["mlx_lm"].append(theirs(config, libmlxc))
        results["ours"].append(ours(openelm, settings, folder))
    for _ in range(RUNS):
        one = ours(openelm, settings, folder, environment=one_thread)
        results["one_process"].append(one)
        two = ours(openelm, settings, folder, "--processes", "2", environment=one_thread)
        results["two_processes"].append(two)
    tokenised = [tokenise(openelm, tokenizer, text) for _ in range(RUNS)]
    shutil.rmtree(folder)
    table = {
        name: {
            "tokens_per_second": [round(run[0], 1) for run in runs],
            "peak_resident_bytes": [run[1] for run in runs],
        }
        for name, runs in results.items()
    }
    middle = lambda name, key: statistics.median(table[name][key])
    ratio = lambda a, b, key: round(middle(a, key) / middle(b, key), 3)
    table["data_tokens_per_second"] = tokenised
    table["ratio"] = {
        "tokens_per_second": ratio("ours", "mlx_lm", "tokens_per_second"),
        "peak_memory": ratio("ours", "mlx_lm", "peak_resident_bytes"),
        "two_processes": ratio("two_processes", "one_process", "tokens_per_second"),
        "data_over_training": round(
            statistics.median(tokenised) / middle("ours", "tokens_per_second"), 1
        ),
    }
    print(json.dumps(table, indent=1))


if __name__ == "__main__":
    if len(sys.argv) == 3 and sys.argv[1] == "--theirs":
        train_theirs(sys.argv[2])
    elif len(sys.argv) == 5:
        main(*sys.argv[1:])
    else:
        sys.exit(__doc__)
