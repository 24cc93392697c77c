"""Converts OpenELM checkpoints with mlx-lm and with `openelm convert`, and compares the two.

    convert.py FOLDER [OPENELM [PART...]]

Without OPENELM, the path of the built command, only mlx-lm's half is made, for
openelm-core/tests/convert_live.rs; with OPENELM it is made if it is missing. In FOLDER:

sources/NAME           random checkpoints in Apple's Hugging Face layout, and their PyTorch files
mlx-lm/NAME-KIND       a source converted by mlx-lm's `convert`
openelm/...            the same source converted by `openelm convert`, with the same folder name
expected/NAME-KIND.safetensors   mlx-lm's logits [100, V] as float32: `logits` as it loads
                       the folder, `float32_logits` with scales, biases and norms cast to float32
index.json             the folders, the prompts and mlx-lm's greedy ids in float32

A check passes if tensors are bit-identical and mlx-lm's logits on two folders are exactly equal:
both programs do the same arithmetic, so there is no tolerance. Each check prints a line; the last
line counts them. Exits with 1 if a check failed or none was made.
"""

import contextlib
import io
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

# The preloaded BLAS is for this process, not for its children: MLX's compiler, `openelm`.
os.environ.pop("LD_PRELOAD", None)
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_VERBOSITY"] = "error"

import mlx.core as mx
import mlx.nn as nn
import numpy as np
from mlx_lm import convert
from mlx_lm.convert import QUANT_RECIPES, mixed_quant_predicate_builder
from mlx_lm.utils import load_model

import torch_writer
from convert_cases import FULL, KINDS, SOURCES, some
from convert_compare import (
    GREEDY,
    assert_same_config,
    assert_same_results,
    assert_same_tensors,
    computed,
    prompt_for,
    read_config,
    run,
    tensors_of,
)
from make_checkpoints import config_of, write_checkpoint

TALES = Path(__file__).resolve().parent.parent / "openelm-core/tests/fixtures/tales"
TOKENIZER = ["tokenizer.json", "tokenizer_config.json"]


class Checks:
    """Counts checks; a check that raises has failed."""

    def __init__(self):
        self.made, self.failed = 0, []

    @contextlib.contextmanager
    def of(self, what):
        """Runs a check. The body appends descriptions to the list, and asserts."""
        detail = []
        try:
            yield detail
            assert detail, "nothing was compared"
            verdict = "ok"
        except Exception as error:
            verdict, detail = "FAILED", [" ".join(str(error).split()) or repr(error)]
            self.failed.append(what)
        self.made += 1
        print(f"{verdict:<6} {what}: {', '.join(detail)}", flush=True)


# Both programs.


def by_mlx_lm(source, target, **keywords):
    """mlx-lm's conversion, or an existing one; its output is dropped."""
    if not target.exists():
        partial = target.with_name(f"{target.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        with contextlib.redirect_stdout(io.StringIO()):
            convert(str(source), str(partial), **keywords)
        partial.rename(target)
    return target


class OpenElm:
    """The command under test."""

    def __init__(self, program, folder):
        self.program, self.folder = Path(program).resolve(), folder

    def __call__(self, name, source, *options):
        """Converts into the folder `name` and returns it."""
        target = self.folder / name
        command = [self.program, "convert", source, target, *options]
        command = [str(word) for word in command]
        done = subprocess.run(command, capture_output=True, text=True)
        message = (done.stderr.strip().splitlines() or ["no message"])[-1]
        assert done.returncode == 0, f"openelm convert ended with {done.returncode}: {message}"
        return target


# Folders and mlx-lm's results on them.


def sources_in(folder):
    """The sources' folders by name."""
    return {"tales": TALES} | {case.name: folder / "sources" / case.name for case in SOURCES}


def write_sources(sources):
    for case in SOURCES:
        write_checkpoint(case, config_of(case), sources[case.name])
        for name in TOKENIZER:
            shutil.copyfile(TALES / name, sources[case.name] / name)


def write_expected(folder, target):
    """Writes the logits of a converted folder; returns its entry for the index."""
    expected = {"logits": computed(folder)[0]}
    model, config = load_model(folder)
    dtype = model.transformer.norm.weight.dtype
    model.set_dtype(mx.float32)
    prompt = prompt_for(config)
    expected["float32_logits"], greedy, margin = run(model, prompt, GREEDY)
    target.parent.mkdir(exist_ok=True)
    mx.save_safetensors(str(target), expected)
    modules = (nn.QuantizedLinear, nn.QuantizedEmbedding)
    return {
        "dtype": str(dtype).removeprefix("mlx.core."),
        "packed": sum(isinstance(module, modules) for _, module in model.named_modules()),
        "prompt": prompt,
        "greedy": greedy,
        "smallest_margin": margin,
    }


def make_all(folder, sources):
    """mlx-lm's conversions with their results, and the index of them."""
    cases = []
    for source in ("tales", "untied", "odd"):
        for kind in KINDS:
            name = f"{source}-{kind.name}"
            target = by_mlx_lm(sources[source], folder / "mlx-lm" / name, **kind.keywords())
            facts = write_expected(target, folder / "expected" / f"{name}.safetensors")
            packed = facts["packed"]
            assert (packed > 0) == (kind.mode is not None), f"{name}: {packed} matrices packed"
            cases.append({"name": name, **facts})
    (folder / "index.json").write_text(json.dumps({"cases": cases}) + "\n")
    margins = [case["smallest_margin"] for case in cases]
    print(
        f"mlx-lm converted {len(cases) // len(KINDS)} sources in {len(KINDS)} ways; "
        f"smallest greedy margins {', '.join(f'{margin:.4f}' for margin in sorted(margins)[:3])}"
    )


# The comparisons.


def check_kinds(checks, openelm, folder, sources):
    """All conversions of mlx-lm's half: the same files and the same results."""
    for source in ("tales", "untied", "odd"):
        for kind in KINDS:
            name = f"{source}-{kind.name}"
            theirs, ours = folder / "mlx-lm" / name, folder / "openelm" / name
            with checks.of(f"{name}: tensors") as detail:
                openelm(name, sources[source], *kind.options())
                packed = assert_same_tensors(tensors_of(ours), tensors_of(theirs), detail)
                assert (packed > 0) == (kind.mode is not None), f"{packed} matrices packed"
                for file in ours.glob("model*.safetensors"):
                    metadata = mx.load(str(file), return_metadata=True)[1]
                    assert metadata.get("format") == "mlx", f"{file.name} has {metadata}"
            with checks.of(f"{name}: config.json") as detail:
                assert_same_config(read_config(ours), read_config(theirs), detail)
            with checks.of(f"{name}: results") as detail:
                assert_same_results(ours, theirs, detail)


def check_shards(checks, openelm, folder, sources):
    """Weights in several files, as in models larger than 5 GB."""
    theirs = folder / "mlx-lm/tales-4-bit"
    with checks.of("tales in shards of 300 kB") as detail:
        options = ["--quantize", "--max-shard-size", "300KB"]
        ours = openelm("tales-shards", sources["tales"], *options)
        shards = sorted(ours.glob("model*.safetensors"))
        assert len(shards) > 2, f"{len(shards)} files"
        detail.append(f"{len(shards)} files")
        assert_same_tensors(tensors_of(ours), tensors_of(theirs), detail)
        assert_same_results(ours, theirs, detail)


def floats(tensors, dtype=mx.float32):
    return {name: tensor.astype(dtype) for name, tensor in tensors.items()}


def check_dequantized(checks, openelm, folder, sources):
    """Dequantises mlx-lm's packed folders to Hugging Face's layout, compared with its
    `--dequantize`.

    In float32 the values equal mlx-lm's. In a 16-bit dtype they are mlx-lm's float32 values,
    rounded once: mlx-lm rounds the product and the sum, which is less exact; both errors are
    measured. It keeps floats of microscaling modes in bfloat16, which is exact, whatever the other
    tensors' dtype is.
    """
    for source in some("tales", "odd"):
        for kind in KINDS:
            if not kind.mode:
                continue
            name = f"{source}-{kind.name}"
            packed = folder / "mlx-lm" / name
            exact = {"dequantize": True, "dtype": "float32"}
            exact = by_mlx_lm(packed, folder / "mlx-lm" / f"{name}-exact", **exact)
            exact = floats(tensors_of(exact))
            options = ["--to", "hf", "--dequantize"]
            with checks.of(f"{name} dequantized to float32") as detail:
                ours = openelm(f"{name}-exact", packed, *options, "--dtype", "float32")
                assert_same_tensors(tensors_of(ours), exact, detail)
                assert exact.keys() == tensors_of(sources[source]).keys(), "names differ from the source's"
                load_model(ours)
            with checks.of(f"{name} dequantized") as detail:
                ours = openelm(f"{name}-dense", packed, *options)
                config = read_config(ours)
                found = {"quantization", "quantization_config"} & config.keys()
                assert not found, f"config.json still has {found}"
                stored = tensors_of(packed)["transformer.norm.weight"].dtype
                assert_same_tensors(tensors_of(ours), floats(exact, stored), detail)
                theirs = {"dequantize": True, "dtype": str(stored).removeprefix("mlx.core.")}
                theirs = by_mlx_lm(packed, folder / "mlx-lm" / f"{name}-dense", **theirs)
                a, b = (distance(tensors_of(f), exact) for f in (ours, theirs))
                assert a <= b, f"{a:.1e} from float32, mlx-lm {b:.1e}"
                detail.append(f"{a:.1e} from float32, mlx-lm {b:.1e}")


def distance(tensors, exact):
    """Root mean square of all differences."""
    squares = [mx.square(tensors[name].astype(mx.float32) - exact[name]).sum() for name in exact]
    return float(sum(squares) / sum(tensor.size for tensor in exact.values())) ** 0.5


def check_round_trip(checks, openelm, folder, sources):
    """To MLX's layout and back."""
    for source in ("tales", "untied", "odd"):
        with checks.of(f"{source} to mlx and back to hf") as detail:
            back = openelm(f"{source}-back", folder / f"mlx-lm/{source}-plain", "--to", "hf")
            assert_same_tensors(tensors_of(back), tensors_of(sources[source]), detail)
            assert_same_config(read_config(back), read_config(sources[source]), detail)


# CoreNet's files.


def corenet(tensors, ema=False, prefix=""):
    """A state dict with CoreNet's names. `ema` gives it other values, exact in 16 bits."""
    kinds = {mx.float32: "f32", mx.float16: "f16", mx.bfloat16: "bf16"}
    state = {}
    for name, tensor in tensors.items():
        kind, values = kinds[tensor.dtype], np.array(tensor.astype(mx.float32))
        values = -values if ema else values
        name = name.removeprefix("transformer.").replace("lm_head", "classifier")
        if name == "token_embeddings.weight" and len(values) == 32000:
            # Padding rows that belong to no token and must be ignored.
            values = np.concatenate([values, np.full((128, values.shape[1]), 1e3, np.float32)])
        storage = torch_writer.Storage(kind, values)
        state[prefix + name] = torch_writer.Tensor(storage, values.shape)
    return torch_writer.state_dict(**state)


def training(tensors):
    """A training checkpoint with EMA weights that differ from its weights."""
    return {
        "iterations": 350000,
        "epoch": 0,
        "model_state_dict": corenet(tensors, prefix="module."),
        "best_metric": np.float64(2.5),
        "ema_state_dict": corenet(tensors, ema=True),
    }


def check_corenet(checks, openelm, folder, sources):
    """Converts PyTorch files to Hugging Face's names, with the original's values and results."""
    for source in ("wide", *some("odd")):
        origin = sources[source]
        tensors = tensors_of(origin)
        known = ["--architecture", origin / "config.json", "--tokenizer", TALES / "tokenizer.json"]
        files = {
            "zip": (torch_writer.save_zip, corenet(tensors)),
            "legacy": (torch_writer.save_legacy, corenet(tensors)),
            "training": (torch_writer.save_zip, training(tensors)),
        }
        for layout, (save, value) in files.items():
            file = folder / f"sources/{source}-{layout}.pt"
            save(file, value)
            for to in ("hf", "mlx") if FULL else ("hf",):
                with checks.of(f"{file.name} to {to}") as detail:
                    ours = openelm(f"{source}-{layout}-{to}", file, *known, "--to", to)
                    assert_same_tensors(tensors_of(ours), tensors, detail)
                    assert_same_config(read_config(ours), read_config(origin), detail)
                    assert_same_results(ours, origin, detail)
        with checks.of(f"{source}-training.pt with --ema") as detail:
            file = folder / f"sources/{source}-training.pt"
            ours = openelm(f"{source}-ema", file, *known, "--ema")
            average = {name: -tensor for name, tensor in tensors.items()}
            assert_same_tensors(tensors_of(ours), average, detail)
        with checks.of(f"{source}-zip.pt quantized at once") as detail:
            theirs = by_mlx_lm(origin, folder / f"mlx-lm/{source}-from-pt", quantize=True)
            file = folder / f"sources/{source}-zip.pt"
            ours = openelm(f"{source}-from-pt", file, *known, "--quantize")
            packed = assert_same_tensors(tensors_of(ours), tensors_of(theirs), detail)
            assert packed > 0, "no matrix is packed"
            assert_same_results(ours, theirs, detail)


# Mixed bits. mlx-lm's recipes do not match OpenELM, because they look for `down_proj`.


class Renamed:
    """A model for mlx-lm's recipes: OpenELM's modules under the recipes' names."""

    def __init__(self, model):
        self.layers = model.layers
        self.names = [renamed(name) for name, _ in model.named_modules()]

    def named_modules(self):
        return [(name, None) for name in self.names]


def renamed(path):
    return path.replace("ffn.proj_2", "mlp.down_proj").replace("attn.qkv_proj", "self_attn.v_proj")


def recipe_bits(recipe, model, path):
    """Bits by mlx-lm's recipe. A tied embedding counts as the head, which the recipes lack."""
    bits_of = mixed_quant_predicate_builder(recipe, Renamed(model), 64)
    tied = path == "transformer.token_embeddings" and model.args.share_input_output_layers
    return bits_of("lm_head" if tied else renamed(path), None)["bits"]


def rule_bits(_rule, _model, path):
    return 8 if path.endswith("out_proj") else 2 if ".3.ffn" in path else 4


RULES = ["--q-layer", "out_proj$=8", "--q-layer", r"\.3\.ffn=2"]


def check_mixed(checks, openelm, folder, sources):
    """Recipes and rules by layer, compared with mlx-lm's packing by an equal predicate."""
    for source in some("untied"):
        model, _ = load_model(sources[source])
        with checks.of(f"{source}: mlx-lm has no recipe for OpenELM") as detail:
            try:
                by_mlx_lm(sources[source], folder / "mlx-lm/none", quant_predicate="mixed_3_6")
            except ValueError as error:
                detail.append(str(error))
        for recipe in (*QUANT_RECIPES, "rules"):
            options = RULES if recipe == "rules" else ["--q-recipe", recipe]
            bits_of = rule_bits if recipe == "rules" else recipe_bits
            chosen = lambda path, _module: {
                "group_size": 64,
                "bits": bits_of(recipe, model, path),
                "mode": "affine",
            }
            name = f"{source}-{recipe}"
            with checks.of(name) as detail:
                ours = openelm(name, sources[source], "--quantize", *options)
                keywords = {"quantize": True, "quant_predicate": chosen}
                theirs = by_mlx_lm(sources[source], folder / "mlx-lm" / name, **keywords)
                assert_same_tensors(tensors_of(ours), tensors_of(theirs), detail)
                config = read_config(ours)
                block = config["quantization"]
                assert config["quantization_config"] == block, "the two blocks differ"
                bits = {}
                for path, module in computed(ours)[3].named_modules():
                    if isinstance(module, (nn.QuantizedLinear, nn.QuantizedEmbedding)):
                        entry = block.get(path, block)
                        found = {key: getattr(module, key) for key in chosen(path, None)}
                        assert found == {key: entry[key] for key in found}, f"{path} is {found}"
                        assert found == chosen(path, None), f"{path} is {found}"
                        bits[found["bits"]] = bits.get(found["bits"], 0) + 1
                assert len(bits) > 1, f"all of {bits}"
                detail.append(" ".join(f"{n} of {b} bits" for b, n in sorted(bits.items())))
                assert_same_results(ours, theirs, detail)


PARTS = {
    "kinds": check_kinds,
    "shards": check_shards,
    "dequantized": check_dequantized,
    "round-trip": check_round_trip,
    "corenet": check_corenet,
    "mixed": check_mixed,
}


def main(folder, program=None, *parts):
    mx.set_default_device(mx.cpu)
    unknown = set(parts) - PARTS.keys()
    if unknown:
        sys.exit(f"convert.py: no such part: {', '.join(sorted(unknown))}")
    started = time.time()
    folder = Path(folder).resolve()
    sources = sources_in(folder)
    if program is None or not (folder / "index.json").exists():
        if folder.exists():
            sys.exit(f"convert.py: {folder} exists")
        (folder / "mlx-lm").mkdir(parents=True)
        write_sources(sources)
        make_all(folder, sources)
    if program is None:
        print(f"no OPENELM argument: nothing was compared  {time.time() - started:.0f} s")
        return
    shutil.rmtree(folder / "openelm", ignore_errors=True)
    (folder / "openelm").mkdir()
    checks = Checks()
    for part, check in PARTS.items():
        if not parts or part in parts:
            check(checks, OpenElm(program, folder / "openelm"), folder, sources)
    print(
        f"{checks.made} conversions compared with mlx-lm's, {len(checks.failed)} failed  "
        f"{time.time() - started:.0f} s"
    )
    if checks.failed or not checks.made:
        sys.exit("convert.py: " + ("; ".join(checks.failed) or "nothing was compared"))


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    main(*sys.argv[1:])
