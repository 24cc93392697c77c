"""Fine-tunes a small random OpenELM with mlx-lm's trainer, for openelm-core's tests.

    finetune.py FOLDER [CASE...]

mlx-lm's `train`, `evaluate`, `default_loss`, `iterate_batches`, `linear_to_lora_layers`,
`build_schedule` and `load_adapters` and MLX's optimizers do the work; this file sets the options
and records the results. parity/run.sh runs it. FOLDER becomes

base/, base-4bit/     the model in Apple's Hugging Face layout in float32 with the tokenizer of
                      openelm-core/tests/fixtures/tales, and mlx-lm's 4-bit conversion of it in groups of 32
data/NAME.jsonl       {"text"} rows; data/prompts/NAME.jsonl: {"prompt","completion"} rows;
                      NAME is train or valid
tokens.json           {"text": {"train": [[id...]...], "valid": ...}, "prompts": {"train":
                      [{"tokens": [id...], "offset": n}...], "valid": ...}}: what was trained on;
                      the targets of a row are tokens[max(offset, 1):]
pairs.json            {"batches": [[pair...]...], "pairs": [{"chosen": {"tokens", "first_target"},
                      "rejected": ...}...]}; the targets are tokens[first_target:]
index.json            {"cases": [...], "dpo": [...]}: the folders' names; written last

and of each case, CASE-exact and, of some or with FULL=1 of all, CASE, which differ only in the mask
of the loss:

case.json             the settings: see `settings_of`
adapter_config.json, adapters.safetensors   as `mlx_lm.lora` leaves them
init.safetensors      what trains, before the first step; final.safetensors: after the last
gradient.safetensors  of the first batch at `init`, not yet divided or accumulated
losses.json           of 20 steps, lists by step: "train" (mean loss, all 24 bits), "tokens"
                      (targets counted), "learning_rate" (as in force after the step), "rows"
                      (indices in the training set, in the batch's order), "width" (columns of the
                      padded batch); "valid": [{"iteration", "loss", "rows"}...] as reported, the
                      last one before the last step; "valid_after": the same after it
logits.safetensors    `logits` [T, V] of "logit_tokens" by the model that `load_adapters` makes of
                      base and folder; `fused_logits` after mlx-lm's `fuse(dequantize=True)`
fused.safetensors     the fused matrices (LoRA and DoRA), named as in base/

mask "mlx-lm" is `default_loss`: one pad, id 0, is a target after the last token of each row.
mask "exact" leaves it out, in an otherwise equal loss that `train` is given.

dpo_sigmoid/ and dpo_hinge/ hold 10 steps of LoRA by direct preference optimisation: the same files
less logits and fusing. losses.json there: "train", "learning_rate", "rows" (indices in pairs.json)
and by step, by pair "policy_chosen", "policy_rejected", "reward_chosen", "reward_rejected";
"reference_chosen", "reference_rejected" by pair of pairs.json, from base/. Each step's loss is
checked against parity/dpo.py.

MLX's compiler is off (COMPILE=1 turns it on): it would start g++ for a minute a case.
"""

import contextlib
import inspect
import io
import json
import os
import shutil
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

# The preloaded BLAS is for this process, not for the compiler started by MLX.
os.environ.pop("LD_PRELOAD", None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten
from mlx_lm import convert, lora
from mlx_lm.tuner import trainer
from mlx_lm.tuner.datasets import CacheDataset
from mlx_lm.tuner.utils import build_schedule, linear_to_lora_layers, load_adapters
from mlx_lm.utils import load_model, load_tokenizer, save_config

import dpo
import make_checkpoints
from finetune_cases import BATCH, BOTH_MASKS, CASES, Case, DPO_BATCH, DPO_STEPS, LORA, OPTIMIZERS, STEPS
from finetune_data import write_data, write_pairs
from finetune_log import Log, Recorded, Rows, trainable

TALES = Path(__file__).resolve().parent.parent / "openelm-core/tests/fixtures/tales"


def logits_of(model, tokens):
    """Logits [T, V] of a list of ids in one forward pass without a cache, as float32."""
    model.eval()
    logits = model(mx.array(tokens)[None])[0].astype(mx.float32)
    mx.eval(logits)
    return logits


def write_models(folder):
    """The base model and its 4-bit conversion."""
    make_checkpoints.SIZES["fine-tuned"] = make_checkpoints.Size(4, 128, 16)
    made = make_checkpoints.Case("finetune", "fine-tuned", 2048, flags={"ffn_dim_divisor": 64})
    make_checkpoints.write_checkpoint(made, make_checkpoints.config_of(made), folder / "base")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(TALES / name, folder / "base" / name)
    shutil.rmtree(folder / "base-4bit", ignore_errors=True)
    with quiet():
        convert(
            str(folder / "base"),
            str(folder / "base-4bit"),
            quantize=True,
            q_bits=4,
            q_group_size=32,
        )


def exact_loss(model, batch, lengths):
    """`default_loss` with a correct mask: targets[s - 1] is token s, so the last target of a row is
    at s = length - 1."""
    inputs, targets = batch[:, :-1], batch[:, 1:]
    logits = model(inputs)
    steps = mx.arange(1, targets.shape[1] + 1)
    mask = mx.logical_and(steps >= lengths[:, 0:1], steps < lengths[:, 1:])
    ce = nn.losses.cross_entropy(logits, targets) * mask
    ntoks = mask.sum()
    return ce.astype(mx.float32).sum() / ntoks, ntoks


LOSSES = {"mlx-lm": trainer.default_loss, "exact": exact_loss}


def quiet():
    """Suppresses mlx-lm's progress output."""
    stack = contextlib.ExitStack()
    stack.enter_context(contextlib.redirect_stdout(io.StringIO()))
    stack.enter_context(contextlib.redirect_stderr(io.StringIO()))
    return stack


def lora_parameters(case):
    if case.type == "full":
        return None
    return LORA | ({} if case.keys is None else {"keys": case.keys})


def arguments(case):
    """The arguments of `mlx_lm.lora`, which it saves as adapter_config.json."""
    return lora.CONFIG_DEFAULTS | {
        "model": case.base,
        "train": True,
        "fine_tune_type": case.type,
        "optimizer": case.optimizer,
        "optimizer_config": {case.optimizer: case.settings},
        "data": "data" if case.data == "text" else f"data/{case.data}",
        "num_layers": case.layers,
        "batch_size": BATCH,
        "iters": STEPS,
        "learning_rate": case.learning_rate,
        "steps_per_report": 1,
        "steps_per_eval": 1000,
        "adapter_path": case.name,
        "grad_accumulation_steps": case.accumulate,
        "lr_schedule": case.schedule,
        "lora_parameters": lora_parameters(case),
        "mask_prompt": case.data == "prompts",
    }


def prepare(case, folder):
    """The model with trainable parameters, as made by `mlx_lm.lora.train_model`."""
    model, _ = load_model(folder / case.base)
    mx.random.seed(0)
    model.freeze()
    if case.type == "full":
        for layer in model.layers[-max(case.layers, 0) :]:
            layer.unfreeze()
    else:
        linear_to_lora_layers(
            model, case.layers, lora_parameters(case), use_dora=case.type == "dora"
        )
    if case.random_b:
        # Wide enough to matter, and sorted, so that the values do not depend on dictionary order.
        names = sorted(name for name in trainable(model) if name.endswith(".lora_b"))
        values = [(n, 0.02 * mx.random.normal(trainable(model)[n].shape)) for n in names]
        model.load_weights(values, strict=False)
    mx.eval(model.parameters())
    return model


def optimizer_of(case):
    rate = build_schedule(case.schedule) if case.schedule else case.learning_rate
    return OPTIMIZERS[case.optimizer](learning_rate=rate, **case.settings)


def settings_of(case, parameters, logit_tokens):
    """case.json."""
    defaults = inspect.signature(OPTIMIZERS[case.optimizer]).parameters
    settings = {key: p.default for key, p in defaults.items() if key != "learning_rate"}
    return {
        "name": case.name,
        "mask": case.mask,
        "fine_tune_type": case.type,
        "base": case.base,
        "data": case.data,
        "seed": 0,
        "num_layers": case.layers,
        "rank": None if case.type == "full" else LORA["rank"],
        "scale": None if case.type == "full" else LORA["scale"],
        "dropout": 0.0,
        "keys": case.keys,
        "optimizer": case.optimizer,
        "optimizer_settings": settings | case.settings,
        "learning_rate": case.learning_rate,
        "lr_schedule": case.schedule,
        "batch_size": BATCH,
        "iters": STEPS,
        "grad_accumulation_steps": case.accumulate,
        "max_seq_length": lora.CONFIG_DEFAULTS["max_seq_length"],
        "trainable_parameters": parameters,
        "logit_tokens": logit_tokens,
    }


def fit(case, folder, tokens):
    """Runs a case and writes its folder; returns the log."""
    output = folder / case.name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    model = prepare(case, folder)
    train = Recorded(Rows(tokens[case.data]["train"]))
    valid = Recorded(Rows(tokens[case.data]["valid"]))
    log = Log(model, valid)
    save_config(arguments(case), output / "adapter_config.json")
    np.random.seed(0)
    with quiet():
        trainer.train(
            model=model,
            optimizer=optimizer_of(case),
            train_dataset=train,
            val_dataset=valid,
            args=trainer.TrainingArgs(
                batch_size=BATCH,
                iters=STEPS,
                steps_per_report=1,
                steps_per_eval=1000,
                steps_per_save=1000,
                adapter_file=output / "adapters.safetensors",
                grad_accumulation_steps=case.accumulate,
            ),
            loss=LOSSES[case.mask],
            training_callback=log,
        )
    mx.save_safetensors(str(output / "init.safetensors"), log.start)
    shutil.copy(output / "adapters.safetensors", output / "final.safetensors")
    after = trainer.evaluate(model, valid, BATCH, -1, loss=LOSSES[case.mask])
    rows = train.batches()[:STEPS]
    losses = {
        "train": [report["train_loss"] for report in log.train],
        "tokens": np.diff([0] + [report["trained_tokens"] for report in log.train]).tolist(),
        "learning_rate": [report["learning_rate"] for report in log.train],
        "rows": rows,
        "width": [int(batch_of(train, batch)[0].shape[1]) for batch in rows],
        "valid": log.validated,
        "valid_after": {"loss": after, "rows": valid.batches()},
    }
    assert len(losses["train"]) == len(rows) == STEPS and len(log.validated) == 2
    (output / "losses.json").write_text(json.dumps(losses) + "\n")
    write_gradient(case, model, log, batch_of(train, rows[0]), output)
    logit_tokens = tokens["text"]["valid"][5]
    write_logits(case, folder, logit_tokens)
    parameters = sum(value.size for value in log.start.values())
    settings = settings_of(case, parameters, logit_tokens)
    # Written last: a folder with this file is complete.
    (output / "case.json").write_text(json.dumps(settings, indent=1) + "\n")
    return log


def batch_of(dataset, rows):
    """Makes a batch again with mlx-lm's `iterate_batches`."""
    again = CacheDataset(Rows([dataset._data[row] for row in rows]))
    state = np.random.get_state()
    batch = next(trainer.iterate_batches(again, len(rows), 2048))
    np.random.set_state(state)
    return batch


def write_gradient(case, model, log, batch, output):
    """The gradient of the first batch at the start, with the dropout of training, which is 0."""
    model.load_weights(list(log.start.items()), strict=False)
    model.train()
    (loss, _), gradient = nn.value_and_grad(model, LOSSES[case.mask])(model, *batch)
    assert abs(loss.item() - log.train[0]["train_loss"]) < 1e-4, (case.name, loss)
    mx.save_safetensors(str(output / "gradient.safetensors"), dict(tree_flatten(gradient)))


def write_logits(case, folder, tokens):
    """Writes logits.safetensors and, for an adapter, fused.safetensors."""
    model, _ = load_model(folder / case.base)
    load_adapters(model, folder / case.name)
    made = {"logits": logits_of(model, tokens)}
    adapted = [(name, m) for name, m in model.named_modules() if hasattr(m, "fuse")]
    if adapted:
        model.update_modules(tree_unflatten([(n, m.fuse(dequantize=True)) for n, m in adapted]))
        made["fused_logits"] = logits_of(model, tokens)
        names = {f"{name}.weight" for name, _ in adapted}
        fused = {n: v for n, v in tree_flatten(model.parameters()) if n in names}
        mx.save_safetensors(str(folder / case.name / "fused.safetensors"), fused)
    mx.save_safetensors(str(folder / case.name / "logits.safetensors"), made)


def check_train_model(case, folder, tokens, log):
    """Checks that `mlx_lm.lora.train_model` gives bit-identical results to `fit`."""
    model, _ = load_model(folder / case.base)
    args = SimpleNamespace(**arguments(case))
    args.adapter_path = str(folder / "train_model")
    again = Log(model, Recorded(Rows([])))
    np.random.seed(0)
    rows = [Rows(tokens[case.data][name]) for name in ("train", "valid")]
    with quiet():
        lora.train_model(args, model, *rows, training_callback=again)
    of = lambda log: [report["train_loss"] for report in log.train]
    assert of(again) == of(log), "train_model's losses"
    for name, value in mx.load(str(folder / case.name / "final.safetensors")).items():
        assert mx.array_equal(value, trainable(model)[name]), name
    saved, ours = (
        json.loads((folder / name / "adapter_config.json").read_text()) | {"adapter_path": ""}
        for name in ("train_model", case.name)
    )
    assert saved == ours, "train_model's adapter_config.json"
    shutil.rmtree(folder / "train_model")
    print("lora: mlx_lm.lora.train_model gives the same losses, tensors and adapter_config.json")


# Direct preference optimisation, which mlx-lm lacks.


def log_probabilities(model, answers):
    """Summed log-probabilities [N] of the targets of answers, in one padded batch."""
    width = max(len(answer["tokens"]) for answer in answers)
    batch = np.zeros((len(answers), width), np.int32)
    mask = np.zeros((len(answers), width - 1), np.float32)
    for row, answer in enumerate(answers):
        batch[row, : len(answer["tokens"])] = answer["tokens"]
        mask[row, answer["first_target"] - 1 : len(answer["tokens"]) - 1] = 1
    logits = model(mx.array(batch[:, :-1]))
    ce = nn.losses.cross_entropy(logits, mx.array(batch[:, 1:]))
    return -(ce * mx.array(mask)).sum(axis=1)


def fit_dpo(loss, beta, folder, pairs):
    name = f"dpo_{loss}"
    case = Case(name, learning_rate=1e-4)
    output = folder / name
    shutil.rmtree(output, ignore_errors=True)
    output.mkdir(parents=True)
    sides = [[pair[side] for pair in pairs["pairs"]] for side in ("chosen", "rejected")]
    base, _ = load_model(folder / "base")
    reference = [log_probabilities(base, side) for side in sides]
    model = prepare(case, folder)
    mx.save_safetensors(str(output / "init.safetensors"), trainable(model))
    config = arguments(case) | {"iters": DPO_STEPS, "batch_size": DPO_BATCH, "data": "pairs.json"}
    save_config(config, output / "adapter_config.json")

    def objective(model, rows):
        both = [side[row] for side in sides for row in rows]
        policy = log_probabilities(model, both)
        chosen, rejected = policy[: len(rows)], policy[len(rows) :]
        rows = mx.array(rows)
        scaled = beta * ((chosen - rejected) - (reference[0][rows] - reference[1][rows]))
        # -log sigmoid(x) is softplus(-x).
        losses = nn.softplus(-scaled) if loss == "sigmoid" else mx.maximum(0, 1 - scaled)
        return losses.mean(), chosen, rejected

    gradient_of = nn.value_and_grad(model, objective)
    optimizer = optimizer_of(case)
    lists = ("train", "learning_rate", "policy_chosen", "policy_rejected")
    losses = {key: [] for key in (*lists, "reward_chosen", "reward_rejected")}
    for step, rows in enumerate(pairs["batches"]):
        (value, *policy), gradient = gradient_of(model, rows)
        if step == 0:
            flat = dict(tree_flatten(gradient))
            mx.save_safetensors(str(output / "gradient.safetensors"), flat)
        optimizer.update(model, gradient)
        mx.eval(model.parameters(), optimizer.state)
        sums = [np.array(p) for p in policy] + [np.array(side)[rows] for side in reference]
        expected = dpo.dpo(loss, beta, *sums)
        assert abs(value.item() - expected["mean"]) < 1e-5, (step, value, expected)
        found = (value.item(), optimizer.learning_rate.item(), *(p.tolist() for p in policy))
        for key, number in zip(lists, found):
            losses[key].append(number)
        for key in ("reward_chosen", "reward_rejected"):
            losses[key].append(expected[key].tolist())
    losses["rows"] = pairs["batches"]
    losses["reference_chosen"], losses["reference_rejected"] = (s.tolist() for s in reference)
    (output / "losses.json").write_text(json.dumps(losses) + "\n")
    mx.save_safetensors(str(output / "final.safetensors"), trainable(model))
    shutil.copy(output / "final.safetensors", output / "adapters.safetensors")
    parameters = sum(value.size for value in trainable(model).values())
    settings = settings_of(case, parameters, []) | {"loss": loss, "beta": beta}
    settings |= {"iters": DPO_STEPS, "batch_size": DPO_BATCH, "data": "pairs.json"}
    (output / "case.json").write_text(json.dumps(settings, indent=1) + "\n")
    zero = sum(r == 0.0 for r in losses["train"])
    print(f"{name:<22} loss {losses['train'][0]:.4f} -> {losses['train'][-1]:.4f}  {zero} of 0")


def main(folder, *names):
    mx.set_default_device(mx.cpu)
    if os.environ.get("COMPILE") != "1":
        mx.disable_compile()
    cases = [replace(c, name=c.name + end, mask=mask) for c in CASES for end, mask in
             (("", "mlx-lm"), ("-exact", "exact"))]
    if os.environ.get("FULL") != "1":
        cases = [case for case in cases if case.mask == "exact" or case.name in BOTH_MASKS]
    losses = {"dpo_sigmoid": ("sigmoid", 0.1), "dpo_hinge": ("hinge", 0.5)}
    unknown = set(names) - {case.name for case in cases} - set(losses)
    if unknown:
        sys.exit(f"finetune.py: no such case: {', '.join(sorted(unknown))}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "index.json").unlink(missing_ok=True)
    write_models(folder)
    tokenizer = load_tokenizer(folder / "base")
    tokens, pairs = write_data(folder, tokenizer), write_pairs(tokenizer)
    (folder / "tokens.json").write_text(json.dumps(tokens) + "\n")
    (folder / "pairs.json").write_text(json.dumps(pairs) + "\n")
    made = {"cases": [], "dpo": []}
    for case in cases:
        if names and case.name not in names:
            continue
        started = time.time()
        log = fit(case, folder, tokens)
        made["cases"].append(case.name)
        first, last = log.validated[0]["loss"], log.validated[-1]["loss"]
        took = time.time() - started
        print(f"{case.name:<22} validation {first:.4f} -> {last:.4f}  {took:.1f} s", flush=True)
        if case.name == "lora":
            check_train_model(case, folder, tokens, log)
    for name, (loss, beta) in losses.items():
        if not names or name in names:
            fit_dpo(loss, beta, folder, pairs)
            made["dpo"].append(name)
    (folder / "index.json").write_text(json.dumps(made) + "\n")


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
