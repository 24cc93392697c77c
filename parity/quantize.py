"""Quantises a model with mlx-lm's `dwq`, `gptq` and `dynamic_quant` and with `openelm quantize`, with
the same calibration text, group size and bits per weight, and compares the divergences.

    quantize.py OPENELM MODEL CALIBRATION HELD_OUT FOLDER [CASE...]

CALIBRATION and HELD_OUT are jsonl files with `text`. FOLDER receives the models of both programs,
and `results.json`. A CASE is `4`, `3` (the width of all matrices) or `mixed-3.5` (3 and 4 bits,
3.5 bits on average, without scales). mlx-lm's sequences are those of `openelm quantize`: documents
between BOS and EOS, cut into 512 tokens, or the model's context. mlx-lm's `dwq` trains with several
learning rates and as many epochs as `openelm quantize`; the best one counts. All divergences are
measured by `openelm evaluate --against`; each folder of `openelm quantize` must load in mlx-lm with
the logits of its dequantised weights. Exits with 1 if a divergence exceeds mlx-lm's, or if `dwq`
to 4 bits has more than half the divergence of rounding.
"""

import copy
import json
import os
import subprocess
import sys
import time
from pathlib import Path

os.environ.pop("LD_PRELOAD", None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import mlx.core as mx
import mlx.optimizers as optimizers
import numpy as np
from mlx_lm.quant.dwq import dwq_quantize
from mlx_lm.quant.dynamic_quant import estimate_sensitivities, estimate_threshold
from mlx_lm.quant.gptq import gptq_quantize
from mlx_lm.utils import dequantize_model, load, quantize_model, save

GROUP, SAMPLES, EPOCHS = 64, 128, 4
RATES = (1e-6, 1e-5, 1e-4)


def sequences(tokenizer, path, length, most):
    """The sequences of `openelm quantize`."""
    tokens, found = [], []
    for line in path.open():
        text = json.loads(line)["text"]
        ids = tokenizer.encode(text, add_special_tokens=False)
        tokens += [tokenizer.bos_token_id, *ids, tokenizer.eos_token_id]
        while len(tokens) >= length and len(found) < most:
            found.append(tokens[:length])
            tokens = tokens[length:]
        if len(found) == most:
            break
    return found


class MlxLm:
    """mlx-lm's half: quantised models of one source."""

    def __init__(self, source, calibration, folder):
        self.source, self.folder = source, folder
        model, self.tokenizer, self.config = load(str(source), return_config=True)
        # MLX multiplies 16-bit matrices slowly on a CPU; the saved scales have 16 bits.
        model.set_dtype(mx.float32)
        self.model = model
        length = min(512, self.config.get("max_context_length", 512))
        self.data = sequences(self.tokenizer, calibration, length, SAMPLES)

    def keep(self, model, config, name):
        model.set_dtype(mx.bfloat16)
        path = self.folder / name
        save(str(path), str(self.source), model, self.tokenizer, config)
        return path

    def rounded(self, bits, name):
        model, config = quantize_model(copy.deepcopy(self.model), dict(self.config), GROUP, bits)
        return self.keep(model, config, name)

    def gptq(self, bits, name):
        model, config = copy.deepcopy(self.model), dict(self.config)
        data = mx.array(self.data)
        model, block = gptq_quantize(model, data, bits, GROUP, bits, GROUP)
        config["quantization"] = config["quantization_config"] = block
        return self.keep(model, config, name)

    def dwq(self, bits, rate, name):
        model, config = quantize_model(copy.deepcopy(self.model), dict(self.config), GROUP, bits)
        np.random.seed(123)
        mx.random.seed(123)
        train = [(tokens, 0) for tokens in self.data] * EPOCHS
        dwq_quantize(
            model, lambda batch, *_, **__: self.model(batch),
            optimizers.Adam(learning_rate=rate, bias_correction=True), train, train[:4], 4, 513, 123,
            dtype=mx.float32,
        )
        return self.keep(model, config, name)

    def dynamic(self, target, low, high, name):
        model = copy.deepcopy(self.model)
        data = mx.array(self.data)
        found = dict(estimate_sensitivities(model, data, low, GROUP, high, GROUP))
        threshold = estimate_threshold(model, found, target, low, GROUP, high, GROUP)

        def predicate(path, module):
            if not hasattr(module, "to_quantized"):
                return False
            return {"bits": high, "group_size": GROUP} if found[path] > threshold else True

        model, config = quantize_model(
            model, dict(self.config), GROUP, low, quant_predicate=predicate)
        return self.keep(model, config, name)


def run(*arguments):
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"quantize: {done.stderr.strip()}")
    return json.loads(done.stdout)


def divergence(openelm, model, source, held_out):
    found = run(openelm, "evaluate", "--model", model, "--against", source, "--perplexity", held_out,
                "--json", "--quiet")
    return found


def kl_of(found):
    """The divergence in the JSON of `openelm evaluate`."""
    if isinstance(found, dict):
        for key, value in found.items():
            if key == "kl_divergence" and isinstance(value, (int, float)):
                return value
            deeper = kl_of(value)
            if deeper is not None:
                return deeper
    return None


def loads_equally(path):
    """Largest difference of mlx-lm's logits on the folder from those of its dequantised weights."""
    model, *_ = load(str(path))
    tokens = mx.array([[1, 5, 9, 20, 31]])
    model.set_dtype(mx.float32)
    packed = model(tokens)
    dense = dequantize_model(copy.deepcopy(model))
    if any(hasattr(module, "scales") for _, module in dense.named_modules()):
        raise SystemExit(f"quantize: {path} is not dequantised")
    return mx.abs(dense(tokens) - packed).max().item()


def main():
    openelm, source, calibration, held_out, folder, *cases = sys.argv[1:]
    source, calibration, held_out, folder = map(Path, (source, calibration, held_out, folder))
    folder.mkdir(parents=True, exist_ok=True)
    theirs = MlxLm(source, calibration, folder)
    results, failed = [], False
    for case in cases or ["4", "3", "mixed-3.5"]:
        rows = []

        def add(name, make):
            path = folder / f"{case}-{name}"
            started = time.time()
            if not path.exists():
                make(path)
            seconds = time.time() - started
            kl = kl_of(divergence(openelm, path, source, held_out))
            size = sum(file.stat().st_size for file in path.glob("*.safetensors"))
            rows.append({"case": case, "name": name, "kl": kl, "bytes": size, "seconds": seconds})
            print(f"{case:10} {name:24} KL {kl:.5f}  {size} bytes  {seconds:.1f} s", flush=True)
            return kl

        def ours(*options):
            return lambda path: run(openelm, "quantize", source, path, "--data", calibration, "--valid",
                                    held_out, "--json", "--quiet", *options)

        if case.startswith("mixed"):
            target = float(case.partition("-")[2]) + 0.5
            theirs_kl = [add("mlx-lm dynamic_quant", lambda path: theirs.dynamic(target, 3, 4, path.name))]
            ours_kl = [add(f"openelm {method}", ours("--target-bits", target, "--method", method))
                       for method in ("round", "gptq", "dwq")]
            pairs = [(kl, theirs_kl[0]) for kl in ours_kl[1:]]
        else:
            bits = int(case)
            rounding = add("mlx-lm convert", lambda path: theirs.rounded(bits, path.name))
            dwq = min(add(f"mlx-lm dwq {rate:g}", lambda path: theirs.dwq(bits, rate, path.name))
                      for rate in RATES)
            mine = [add(f"openelm {method}", ours("--bits", bits, "--method", method))
                    for method in ("gptq", "awq", "dwq")]
            pairs = [(mine[2], dwq)]
            # mlx-lm's gptq packs 2, 4 and 8 bits only.
            if bits == 4:
                gptq = add("mlx-lm gptq", lambda path: theirs.gptq(bits, path.name))
                pairs += [(mine[0], gptq), (mine[2], rounding / 2)]
        failed = failed or any(mine > most for mine, most in pairs)
        for row in rows:
            if row["name"].startswith("openelm"):
                row["logits"] = loads_equally(folder / f"{case}-{row['name']}")
                failed = failed or row["logits"] > 1e-3
        results += rows
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
