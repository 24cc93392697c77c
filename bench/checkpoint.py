"""Writes the checkpoint that both sides run: OpenELM-270M's shapes with random weights.

    checkpoint.py FOLDER [float32 | float16 | bfloat16]

The default dtype is float32. Apple's Hugging Face layout with a tokenizer: LLaMA's if the
environment variable OPENELM_TEST_DATA names a folder with llama-tokenizer/tokenizer.json, otherwise
the small one of openelm-core/tests/fixtures/tales. Speed does not depend on the weights' values.
Needs the packages that parity/setup.sh installs.
"""

import json
import os
import shutil
import sys
from pathlib import Path

import mlx.core as mx
import numpy as np

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "parity"))
from make_checkpoints import Case, config_of, shapes_of

SEED = 270
STD = 0.02
TALES = ROOT / "openelm-core/tests/fixtures/tales"


def random_weights(config, dtype):
    rng = np.random.default_rng(SEED)
    for name, shape in shapes_of(config):
        values = rng.standard_normal(shape, dtype=np.float32) * np.float32(STD)
        tensor = mx.array(1 + values if "norm" in name else values).astype(getattr(mx, dtype))
        mx.eval(tensor)
        yield name, tensor


def tokenizer_file():
    """LLaMA's tokenizer, or the small one without test data."""
    if data := os.environ.get("OPENELM_TEST_DATA"):
        return Path(data) / "llama-tokenizer/tokenizer.json"
    small = TALES / "tokenizer.json"
    print(f"bench: OPENELM_TEST_DATA is not set: using {small.relative_to(ROOT)}", file=sys.stderr)
    return small


def main(folder, dtype="float32"):
    mx.set_default_device(mx.cpu)
    config = config_of(Case("bench", "270M", 32000, stored=dtype))
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(tokenizer_file(), folder / "tokenizer.json")
    shutil.copyfile(TALES / "tokenizer_config.json", folder / "tokenizer_config.json")
    (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    # Renamed last: a folder with weights is complete.
    unfinished = folder / "unfinished.safetensors"
    weights = dict(random_weights(config, dtype))
    mx.save_safetensors(str(unfinished), weights, metadata={"format": "pt"})
    unfinished.rename(folder / "model.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
