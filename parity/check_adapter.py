"""What mlx-lm makes of an adapter or a fused model that the Rust trainer wrote.

    check_adapter.py OUTPUT TOKENS BASE [ADAPTER]

OUTPUT   a safetensors file to write: `logits` [T, V] in float32
TOKENS   a JSON list of T token ids
BASE     a model folder; without ADAPTER, the fused model to look at
ADAPTER  a folder with adapter_config.json and adapters.safetensors in mlx-lm's layout

mlx-lm's own `load_model` and `load_adapters` read the files, strictly: a tensor that the model
lacks, or one of another shape, ends the script with the message and 1. What neither minds is said
on standard error: adapter tensors that the file lacks, which keep mlx-lm's random start.

Run as parity/run.sh runs oracle.py, under PYTHONPATH=.mlx/oracle.
"""

import json
import os
import sys
from pathlib import Path

# The preloaded BLAS is for this process, not for the compiler that MLX starts.
os.environ.pop("LD_PRELOAD", None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import mlx.core as mx
from mlx.utils import tree_flatten
from mlx_lm.tuner.utils import load_adapters
from mlx_lm.utils import load_model


def logits_of(model, tokens):
    """Logits [T, V] of a list of ids in one forward pass without a cache, as float32."""
    model.eval()
    logits = model(mx.array(tokens)[None])[0].astype(mx.float32)
    mx.eval(logits)
    return logits


def missing(model, adapter):
    """Adapter parameters of the model that the file does not hold."""
    held = mx.load(str(Path(adapter) / "adapters.safetensors"))
    names = (name for name, _ in tree_flatten(model.parameters()))
    leaves = ("lora_a", "lora_b", "m")
    return [name for name in names if name.rsplit(".", 1)[-1] in leaves and name not in held]


def main(output, tokens, base, adapter=None):
    mx.set_default_device(mx.cpu)
    model, _ = load_model(Path(base))
    if adapter is not None:
        load_adapters(model, adapter)
        for name in missing(model, adapter):
            print(f"check_adapter: {adapter} lacks {name}", file=sys.stderr)
    mx.save_safetensors(output, {"logits": logits_of(model, json.loads(Path(tokens).read_text()))})


if __name__ == "__main__":
    if len(sys.argv) not in (4, 5):
        sys.exit(__doc__)
    try:
        main(*sys.argv[1:])
    except (ValueError, OSError, KeyError) as error:
        sys.exit(f"check_adapter: {error}")
