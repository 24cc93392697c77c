"""Loads adapters trained by openelm-core with mlx-lm, and compares the logits.

    load_adapters.py FOLDER

FOLDER is written by finetune.py; openelm-core's finetune_live test wrote its trained adapter of
each case to `<case>/ours`.

mlx-lm's `load_model` and `load_adapters` read the files strictly: a tensor that the model lacks, or
a tensor of another shape, is an error. A missing tensor, for which mlx-lm would keep random values,
is an error, too. The logits of the case's tokens must equal openelm-core's,
`ours/logits.safetensors`, within BOUND.
"""

import json
import os
import sys
from pathlib import Path

# The preloaded BLAS is for this process, not for the compiler started by MLX.
os.environ.pop("LD_PRELOAD", None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model

BOUND = 2e-4


def missing(model, adapter):
    """Adapter parameters of the model that the file lacks."""
    held = mx.load(str(adapter / "adapters.safetensors"))
    names = (name for name, _ in tree_flatten(model.parameters()))
    leaves = ("lora_a", "lora_b", "m")
    return [name for name in names if name.rsplit(".", 1)[-1] in leaves and name not in held]


def compare(folder, name, case):
    """The largest logit difference."""
    adapter = folder / name / "ours"
    model, _ = load_model(folder / case["base"])
    before = model(mx.array(case["logit_tokens"])[None])[0]
    mx.eval(before)
    load_adapters(model, str(adapter))
    if lacking := missing(model, adapter):
        sys.exit(f"load_adapters: {name}: the file lacks {lacking[0]}")
    model.eval()
    found = model(mx.array(case["logit_tokens"])[None])[0].astype(mx.float32)
    wanted = mx.load(str(adapter / "logits.safetensors"))["logits"]
    if (moved := mx.abs(found - before).max().item()) < 100 * BOUND:
        sys.exit(f"load_adapters: {name}: the adapter changes logits by only {moved:.1e}")
    return mx.abs(found - wanted).max().item()


def main(folder):
    mx.set_default_device(mx.cpu)
    compared = 0
    for name in json.loads((folder / "index.json").read_text())["cases"]:
        case = json.loads((folder / name / "case.json").read_text())
        if case.get("logit_tokens"):
            off = compare(folder, name, case)
            print(f"{name:24} logits {off:.1e}")
            if not off <= BOUND:
                sys.exit(f"load_adapters: {name}: logits differ by {off:.1e}, more than {BOUND:.1e}")
            compared += 1
    if compared < (34 if os.environ.get("FULL") == "1" else 20):
        sys.exit(f"load_adapters: only {compared} cases")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(Path(sys.argv[1]))
