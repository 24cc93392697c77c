"""Memory of `openelm pretrain` with its parameters sharded over processes (`--fsdp`).

    fsdp.py [--preset NAME] [--iters N] [--openelm FILE]

Trains a model of a released size from random weights in one process, and sharded over two and four,
and prints JSON: the peak memory of MLX's arrays in the first process, the largest resident memory of
all processes, both also as a share of one process', and the losses.
"""

import argparse
import json
import subprocess
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TALES = ROOT / "examples/data/tales"


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--preset", default="270M")
    parser.add_argument("--iters", type=int, default=3)
    parser.add_argument("--openelm", default=str(ROOT / "target/release/openelm"))
    args = parser.parse_args()
    runs = {count: run(args, count) for count in (1, 2, 4)}
    one = runs[1]
    for found in runs.values():
        for key in ("peak_bytes", "resident_bytes"):
            found[f"{key}_share"] = round(found[key] / one[key], 3)
    print(json.dumps(runs, indent=1))


def run(args, count):
    """Memory and losses of a run of `count` processes."""
    with tempfile.TemporaryDirectory() as folder:
        command = [args.openelm, "pretrain", "--preset", args.preset, "--tokenizer",
                   str(ROOT / "examples/tales"), "--vocab-size", "32000", "--data",
                   str(TALES / "train.jsonl"), "--output", f"{folder}/run", "--iters",
                   str(args.iters), "--batch-size", "4", "--micro-batch-size", "1",
                   "--max-seq-length", "64", "--grad-checkpoint", "--average-last", "0",
                   "--json", "--quiet"]
        if count > 1:
            command += ["--processes", str(count), "--fsdp"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        resident = Resident(process.pid)
        output = process.communicate()[0]
        most = resident.stop()
        if process.returncode:
            raise SystemExit(f"openelm pretrain: status {process.returncode}")
    events = [json.loads(line) for line in output.splitlines()]
    steps = [event for event in events if event["event"] == "step"]
    return {
        "peak_bytes": max(step["peak_memory_bytes"] for step in steps),
        "resident_bytes": most,
        "losses": [step["train_loss"] for step in steps],
    }


class Resident:
    """The largest resident memory of a process and its children, sampled."""

    def __init__(self, pid):
        self.pid, self.most, self.ended = pid, 0, False
        self.thread = threading.Thread(target=self.watch)
        self.thread.start()

    def watch(self):
        while not self.ended:
            for pid in [self.pid, *children(self.pid)]:
                try:
                    text = Path(f"/proc/{pid}/status").read_text()
                except OSError:
                    continue
                kilobytes = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM")]
                self.most = max([self.most, *(1024 * int(n) for n in kilobytes)])
            time.sleep(0.1)

    def stop(self):
        self.ended = True
        self.thread.join()
        return self.most


def children(pid):
    """The processes that `pid` has started."""
    try:
        return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return []


if __name__ == "__main__":
    main()
