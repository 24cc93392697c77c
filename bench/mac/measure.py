"""Speed, memory and fine-tuning of `openelm` and mlx-lm, in alternation."""

import contextlib
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from processes import Failed, read_json, run

sys.path.append(str(Path(__file__).resolve().parent.parent))
import finetune

GENERATED, REPEATS = 64, 3
PROMPTS = (128, 512)
# Fine-tuning: iterations, of which the first two are not counted, and targets of an iteration.
ITERATIONS = 22
BATCH, LENGTH = 4, 128


def speed(settings, log):
    """The jobs of both tools by dtype, and the problems."""
    found, problems = {"rounds": settings["rounds"], "model": str(settings["model"]), "dtypes": {}}, []
    tools = available(settings, log, problems)
    if "openelm" not in tools:
        return found, problems
    found["device"], dtypes = device_and_dtypes(settings, log, problems)
    for dtype in dtypes:
        with converted(settings, dtype, log, problems) as model:
            jobs = {tool: [] for tool in tools}
            for _ in range(settings["rounds"] if model else 0):
                for tool in tools:
                    with noted(problems, f"{tool}, {dtype}"):
                        jobs[tool].append(JOBS[tool](settings, model, log))
            found["dtypes"][dtype] = jobs
    return found, problems


def training(settings, log):
    """The runs of both tools with LoRA on all layers, and the problems."""
    found, problems = {"batch": BATCH, "targets_per_row": LENGTH, "iterations": ITERATIONS}, []
    tools = available(settings, log, problems)
    if "openelm" not in tools:
        return found, problems
    found["device"], dtypes = device_and_dtypes(settings, log, problems)
    if not dtypes:
        return found, problems
    found["dtype"] = dtypes[0]
    finetune.STEPS = ITERATIONS
    preload = oracle_environment(settings).get("LD_PRELOAD", "")
    with converted(settings, dtypes[0], log, problems) as model, temporary(settings) as folder:
        data = folder / "data"
        write_rows(settings["root"], data)
        runs = {tool: [] for tool in tools}
        for _ in range(settings["rounds"] if model else 0):
            for tool in tools:
                with noted(problems, f"{tool}, fine-tuning"):
                    if tool == "openelm":
                        measured = finetune.ours(settings["openelm"], model, data, folder, LENGTH)
                    else:
                        with variable("PYTHONPATH", oracle_environment(settings)["PYTHONPATH"]):
                            measured = finetune.theirs(model, data, folder, LENGTH, preload)
                    runs[tool].append(of_training(measured))
                    log.write(f"{tool}: {json.dumps(runs[tool][-1])}\n".encode())
    found["runs"] = runs
    return found, problems


def of_training(measured):
    tokens_per_second, resident, _ = measured
    return {
        "tokens_per_second": tokens_per_second,
        "iterations_per_second": tokens_per_second / (BATCH * LENGTH),
        "peak_resident_bytes": resident,
    }


def openelm_job(settings, model, log):
    lengths = ",".join(map(str, prompt_lengths(model)))
    command = [settings["openelm"], "bench", "--model", model, "--prompt-tokens", lengths]
    command += ["-n", GENERATED, "--repeat", REPEATS, "--dtype", stored_dtype(model), "--json"]
    return read_json(command, log)


def mlx_lm_job(settings, model, log):
    lengths = ",".join(map(str, prompt_lengths(model)))
    script = settings["root"] / "bench/mlx_lm_job.py"
    command = [sys.executable, script, model, lengths, GENERATED, REPEATS, 0]
    return read_json(command, log, oracle_environment(settings))


JOBS = {"openelm": openelm_job, "mlx_lm": mlx_lm_job}


def prompt_lengths(model):
    """PROMPTS, shortened so that the generated tokens fit the model's context."""
    config = json.loads((model / "config.json").read_text())
    most = config.get("max_context_length", max(PROMPTS) + GENERATED) - GENERATED
    return sorted({min(length, most) for length in PROMPTS})


def stored_dtype(model):
    """The dtype in the name of a folder of `converted`."""
    return model.name.rpartition("-")[2]


def available(settings, log, problems):
    """The tools that can be measured; a missing tool is a problem."""
    tools = []
    if os.access(settings["openelm"], os.X_OK):
        tools.append("openelm")
    else:
        problems.append(f"{settings['openelm']} is missing: run make build")
    if run([settings["root"] / "parity/setup.sh"], log) == 0:
        tools.append("mlx_lm")
    else:
        problems.append("parity/setup.sh: mlx-lm is not installed, and openelm is measured alone")
    return tools


def device_and_dtypes(settings, log, problems):
    """The device that openelm takes, and the dtypes to measure; training takes the first."""
    command = [settings["openelm"], "bench", "--model", settings["model"], "--prompt-tokens", 8]
    with noted(problems, "openelm"):
        device = read_json([*command, "-n", 2, "--repeat", 1, "--json"], log)["device"]
        return device, ["float32"] if device == "cpu" else ["bfloat16", "float32"]
    return None, []


def oracle_environment(settings):
    """Variables for mlx-lm: on Linux it gets the BLAS of openelm, as in bench/inference.py."""
    root = settings["root"]
    found = {
        "PYTHONPATH": str(root / ".mlx/oracle"),
        "PYTHONNOUSERSITE": "1",
        "PYTHONDONTWRITEBYTECODE": "1",
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_VERBOSITY": "error",
    }
    blas = root / ".mlx/lib/libmlxc.so"
    return {**found, "LD_PRELOAD": str(blas)} if blas.exists() else found


@contextlib.contextmanager
def noted(problems, name):
    """Keeps the failure of a job as a problem, so that the next job runs."""
    try:
        yield
    except (Failed, SystemExit) as error:
        problems.append(f"{name}: {error}")


@contextlib.contextmanager
def temporary(settings):
    folder = Path(tempfile.mkdtemp(dir=settings["out"]))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def converted(settings, dtype, log, problems):
    """A copy of the model in a dtype, which both tools read; None if it cannot be made."""
    with temporary(settings) as folder:
        model = folder / f"model-{dtype}"
        command = [settings["openelm"], "convert", settings["model"], model]
        status = run([*command, "--dtype", dtype, "--quiet", "--verify", "none"], log)
        if status != 0:
            problems.append(f"openelm convert --dtype {dtype} ended with status {status}")
        yield model if status == 0 else None


@contextlib.contextmanager
def variable(name, value):
    old = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if old is None:
            del os.environ[name]
        else:
            os.environ[name] = old


def write_rows(root, folder):
    """Rows of this repository's documents, longer than LENGTH tokens, for training and validation."""
    text = "\n".join(path.read_text() for path in sorted((root / "docs").glob("*.md")))
    rows = [json.dumps({"text": text[i * 2000 : i * 2000 + 2000]}) for i in range(20)]
    folder.mkdir()
    (folder / "train.jsonl").write_text("\n".join(rows[:16]) + "\n")
    (folder / "valid.jsonl").write_text("\n".join(rows[16:]) + "\n")
