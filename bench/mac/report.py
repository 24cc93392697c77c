"""The report: medians and ratios of the measurements, as JSON and as text."""

import json
import re
from pathlib import Path
from statistics import median

# Last lines of a step's log in the report: kept, and shown for a step that passed.
TAIL, SHOWN = 40, 3
# Control sequences of terminals.
CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[^\n\t\x20-\uffff]|\x7f")
MEGABYTE = 1e6


def tail(text, lines=TAIL):
    """The last lines of a log, without control sequences and the home folder's name."""
    home = str(Path.home())
    if len(home) > 1:
        text = text.replace(home, "~")
    # A progress bar overwrites its line.
    kept = [line.rpartition("\r")[2] for line in text.replace("\r\n", "\n").split("\n")]
    kept = [CONTROL.sub("", line)[:400] for line in kept]
    return [line for line in kept if line.strip()][-lines:]


def summary(jobs):
    """Medians of the jobs of one tool; None for a number that no job has."""
    found = {key: middle(job.get(key) for job in jobs) for key in (
        "load_seconds", "active_bytes", "peak_bytes", "cache_bytes")}
    lengths = sorted({run["prompt_tokens"] for job in jobs for run in job["runs"]})
    for length in lengths:
        runs = [run for job in jobs for run in job["runs"] if run["prompt_tokens"] == length]
        for key in ("prefill_tokens_per_second", "decode_tokens_per_second", "first_token_seconds"):
            found[f"{key} {length}"] = middle(run.get(key) for run in runs)
    return found


def middle(values):
    """The median of the numbers among the values, or None."""
    values = [value for value in values if value is not None]
    return median(values) if values else None


def compared(runs, summarise):
    """The medians of both tools, and ours over mlx-lm's for each number that both have."""
    found = {tool: summarise(jobs) for tool, jobs in runs.items() if jobs}
    ours, theirs = found.get("openelm", {}), found.get("mlx_lm", {})
    found["ratio"] = {
        key: round(ours[key] / theirs[key], 3) for key in ours if ours[key] is not None and theirs.get(key)
    }
    return found


def medians(results):
    """Medians and ratios of the speed step by dtype, and of the training step."""
    found = {}
    for dtype, runs in results.get("speed", {}).get("dtypes", {}).items():
        found[f"speed {dtype}"] = compared(runs, summary)
    runs = results.get("training", {}).get("runs")
    if runs:
        found["training"] = compared(runs, lambda jobs: {
            key: middle(job[key] for job in jobs) for key in jobs[0]})
    return found


def heading(system):
    """The first line."""
    if not system["system"].startswith("Darwin"):
        return f"NO MEASUREMENT OF A MAC: {system['system']}; this run only tries the steps of make mac"
    memory = system.get("memory_bytes")
    size = f", {memory / 2**30:.0f} GiB" if memory else ""
    return f"OpenELM on {system.get('chip', 'a Mac')}{size}, macOS {system.get('macos', '?')}"


def as_json(results):
    return json.dumps({"heading": heading(results["system"]), **results, "medians": medians(results)}, indent=1) + "\n"


def as_text(results, names):
    """The report as text; `names` are the chosen steps."""
    lines = [heading(results["system"]), ""]
    for key, value in results["system"].items():
        if isinstance(value, dict):
            value = " ".join(f"{name}={word}" for name, word in value.items())
        lines.append(f"{key:<18} {value}")
    for name, value in of_devices(results).items():
        lines.append(f"{name:<18} {value}")
    lines += ["", f"{'step':<16}{'result':<14}seconds"]
    steps = {step["name"]: step for step in results["steps"]}
    for name in names:
        step = steps.get(name, {"status": "not run", "seconds": 0})
        lines.append(f"{name:<16}{step['status']:<14}{step['seconds']:.0f}")
    for name, table in medians(results).items():
        lines += ["", title(name, results), *rows(table)]
    for step in results["steps"]:
        shown = step["log_tail"][-SHOWN:] if step["status"] == "passed" else step["log_tail"]
        lines += ["", f"--- {step['name']}: {step['status']}; the end of its output", *shown]
    return "\n".join(lines) + "\n"


def of_devices(results):
    """What the measurements say of devices and versions."""
    speed = results.get("speed", {})
    jobs = [job for runs in speed.get("dtypes", {}).values() for job in runs.get("mlx_lm", [])]
    versions = jobs[0].get("versions", {}) if jobs else {}
    found = {
        "device of openelm": speed.get("device") or results.get("training", {}).get("device"),
        "device of mlx-lm": jobs[0].get("device") if jobs else None,
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        **{key.replace("_", " "): value for key, value in (jobs[0].get("device_info", {}) if jobs else {}).items()},
    }
    return {key: value for key, value in found.items() if value not in (None, "")}


def title(name, results):
    found = results[name.partition(" ")[0]]
    dtype = name.partition(" ")[2] or found.get("dtype")
    if name == "training":
        return (f"LoRA fine-tuning of all layers in {dtype} on the {found.get('device')}: batches of {found['batch']} "
                f"rows of {found['targets_per_row']} targets, {found['iterations']} iterations")
    return f"{found['model']} in {dtype} on the {found.get('device')}, medians of {found['rounds']} alternating rounds"


def rows(table):
    """A line per number: its name and unit, openelm, mlx-lm, ratio."""
    yield f"{'':<40}{'openelm':>12}{'mlx-lm':>12}{'ratio':>8}"
    for key in table.get("openelm") or table.get("mlx_lm") or {}:
        cells = [table.get(tool, {}).get(key) for tool in ("openelm", "mlx_lm")]
        unit, scale = ("MB", 1 / MEGABYTE) if key.endswith("_bytes") else ("ms", 1e3) if "_seconds" in key else ("", 1)
        name = key.replace("_bytes", "").replace("_seconds", "").replace("_", " ")
        label = f"{name}, {unit}" if unit else name
        if key[-1].isdigit():
            words, _, length = name.rpartition(" ")
            label = f"{words}, prompt of {length}" + (f", {unit}" if unit else "")
        shown = "".join(f"{'-' if cell is None else format(cell * scale, ',.2f'):>12}" for cell in cells)
        ratio = table["ratio"].get(key)
        yield f"{label:<40}{shown}{'-' if ratio is None else format(ratio, '.2f'):>8}"
