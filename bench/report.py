"""Writes the results of inference.py, convert.py, decoding.py, swift.py and launches.py as the tables
of bench/README.md."""

import datetime
import json
import os
import platform
from pathlib import Path
from statistics import median

FOLDER = Path(__file__).resolve().parent
START = "<!-- {}: `make bench` replaces what follows -->"
END = "<!-- end of {} -->"
# Prompt lengths whose next 120 tokens are around positions 100 and 2,000.
POSITIONS = (40, 1920)


def runs(jobs, key, prompt_tokens):
    """One number per round, for one prompt length."""
    rows = [row for job in jobs for row in job["runs"] if row["prompt_tokens"] == prompt_tokens]
    return [row[key] for row in rows]


def verdict(ratio, target, aim=None, at_most=False):
    met = ratio <= target if at_most else ratio >= target
    if aim is not None:
        reached = "reached" if ratio >= aim else "not reached"
        return f"{'met' if met else '**not met**'}; aim of {aim:.2f} {reached}"
    return "met" if met else "**not met**"


def row(what, ours, theirs, form, target, **options):
    """A line of the table; `ours` and `theirs` hold one number per round."""
    a, b = median(ours), median(theirs)
    # For seconds less is better, so the ratio is inverted.
    ratio = b / a if options.pop("inverse", False) else a / b
    limit = f"at most {target:g}" if options.get("at_most") else f"at least {target:g}"
    cells = [what, form(a), form(b), f"{ratio:.2f}", limit, verdict(ratio, target, **options)]
    return "| " + " | ".join(cells) + " |"


def rate(value):
    return f"{value:.1f} tokens/s"


def seconds(value):
    return f"{value:.2f} s"


def mebibytes(value):
    return f"{value / 2**20:.0f} MiB"


def table(results):
    ours, same, wheel = (results[name] for name in ("openelm", "same_blas", "wheel_blas"))
    prefill, decode = "prefill_tokens_per_second", "decode_tokens_per_second"
    first, resident = results["first_token_seconds"], "peak_resident_bytes"
    lines = [
        "| | openelm | mlx-lm | ratio | target | |",
        "|---|---|---|---|---|---|",
    ]
    for name, key in (("prefill", prefill), ("decode", decode)):
        for n in (128, 512):
            what = f"{name}, prompt of {n}, same BLAS"
            lines.append(row(what, runs(ours, key, n), runs(same, key, n), rate, 1.0, aim=1.1))
    for name, key, target in (("prefill", prefill, 25), ("decode", decode, 4)):
        what = f"{name}, prompt of 128, mlx-lm as installed by pip"
        lines.append(row(what, runs(ours, key, 128), runs(wheel, key, 128), rate, target))
    for name, theirs in (("mlx-lm as installed by pip", "wheel_blas"), ("same BLAS", "same_blas")):
        what = f"process start to first token, {name}"
        lines.append(row(what, first["openelm"], first[theirs], seconds, 5, inverse=True))
    peaks = [[job[resident] for job in jobs] for jobs in (ours, same)]
    lines.append(row("peak memory, same BLAS", *peaks, mebibytes, 0.9, at_most=True))
    near, far = (
        [1e3 / value for value in runs(results["position"], decode, n)] for n in POSITIONS
    )
    # Within each round, because the machine's speed changes.
    ratio = median(b / a for a, b in zip(near, far))
    lines.append(
        f"| time per token, position 2,000 and 100 | {median(far):.1f} ms, {median(near):.1f} ms"
        f" | | {ratio:.2f} | at most 1.2 | {verdict(ratio, 1.2, at_most=True)} |"
    )
    return lines


def roofline(results):
    """The hardware limits, and the time beyond them."""
    best = lambda key: max(limit[key] for limit in results["roofline"])
    least = lambda key: min(limit[key] for limit in results["roofline"])
    read, peak = best("read_bytes_per_second"), best("sgemm_flop_per_second")
    weights = results["roofline"][0]["weight_bytes"]
    flop = 2 * results["roofline"][0]["layer_parameters"]
    decode = median(runs(results["openelm"], "decode_tokens_per_second", 128))
    prefill = median(runs(results["openelm"], "prefill_tokens_per_second", 512))
    step, products = 1e3 / decode, 1e3 * least("decode_products_seconds")
    token, chunk = 1e3 / prefill, 1e3 * least("prefill_products_seconds_per_token")
    return [
        f"Limits: two threads read {read / 1e9:.1f} GB/s, and a token reads all {weights / 1e9:.3f} GB"
        f" of weights: decode at most {read / weights:.1f} tokens/s, of which openelm reaches"
        f" {decode * weights / read:.0%}. They multiply at {peak / 1e9:.0f} GFLOP/s"
        f" (512 x 1280 by 1280 x 4096), and a prompt token takes {flop / 1e9:.3f} GFLOP in the layers'"
        f" weights: prefill at most {peak / flop:.0f} tokens/s, of which openelm reaches"
        f" {prefill * flop / peak:.0%} at 512.",
        "",
        f"Other time: a decoded token takes {step:.1f} ms, of which the products with the"
        f" weights alone take {products:.1f} ms through the same BLAS; a prompt token takes"
        f" {token:.2f} ms at 512, its products {chunk:.2f} ms. The other"
        f" {1 - products / step:.0%} and {1 - chunk / token:.0%} are MLX's element-wise kernels"
        " (normalisation, rotary embedding, SwiGLU, softmax, copies), which run on one thread, the"
        " attention's own products and the hand-over between threads.",
    ]


def machine():
    model = platform.processor() or platform.machine()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return f"{model}, {len(os.sched_getaffinity(0))} cores, {memory:.0f} GiB"


def markdown(results, version, threads):
    versions = results["same_blas"][0]["versions"]
    rounds = len(results["openelm"])
    head = (
        f"Measured on {datetime.date.today().isoformat()}: {machine()}; {version}, mlx-lm"
        f" {versions['mlx-lm']}, MLX {versions['mlx']}, OpenBLAS {results['roofline'][0]['blas']},"
        f" {threads} threads; medians of {rounds} interleaved rounds."
    )
    return "\n".join([head, "", *table(results), "", *roofline(results)])


def conversion_table(results):
    """`openelm convert` and `mlx_lm.convert`: above 1, openelm is faster or smaller."""
    ours = {"with verification": "openelm", "`--verify none`": "openelm_unverified"}
    theirs = {"mlx-lm as installed by pip": "wheel_blas", "same BLAS": "same_blas"}
    lines = ["| | openelm | mlx-lm | ratio |", "|---|---|---|---|"]
    for what, key, form in (
        ("wall time", "seconds", seconds),
        ("peak memory", "peak_resident_bytes", mebibytes),
    ):
        for how, name in ours.items():
            for whose, other in theirs.items():
                a, b = (median(run[key] for run in results[n]) for n in (name, other))
                cells = [f"{what}, {how}, {whose}", form(a), form(b), f"{b / a:.2f}"]
                lines.append("| " + " | ".join(cells) + " |")
    return lines


def conversion_markdown(results, version):
    versions = results["versions"]
    rounds = len(results["openelm"])
    sizes = [results[key] / 2**20 for key in ("source_bytes", "target_bytes")]
    head = (
        f"Measured on {datetime.date.today().isoformat()}: {machine()}; {version}, mlx-lm"
        f" {versions['mlx-lm']}, MLX {versions['mlx']}; {sizes[0]:.0f} MiB to {sizes[1]:.0f} MiB;"
        f" medians of {rounds} interleaved rounds. Ratio: mlx-lm's over openelm's."
    )
    return "\n".join([head, "", *conversion_table(results)])


def write(text, results, name):
    """Writes the tables between the markers `name` of README.md, and all numbers to NAME.json."""
    path = FOLDER / "README.md"
    start, end = START.format(name), END.format(name)
    before, rest = path.read_text().split(start)
    after = rest.split(end)[1]
    path.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}")
    (FOLDER / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
