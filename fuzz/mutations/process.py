"""Runs a command under limits of time, memory and file size, and measures it."""

import os
import shlex
import signal
import subprocess
import time
from collections import namedtuple

# Limits of a case. A debug build of the tool needs far less for inputs under 1 MB.
CPU_SECONDS = 10
WALL_SECONDS = 90
MEMORY_BYTES = 1 << 30
# Hard limits, which protect the machine. Memory is the data segment: heap and private mappings.
DATA_BYTES = 4 << 30
FILE_BYTES = 256 << 20
OPEN_FILES = 256
# Seconds until a job that an option made long is interrupted, and interrupted again.
INTERRUPT_CPU = 5, 8
INTERRUPT_WALL = 40, 65
# Bytes of a stream that are kept.
KEPT_BYTES = 64 << 10

# `code` is the exit code, or None with `signal`, the number of the signal that ended the process.
# `stopped` is "killed" after a limit, "interrupted" or "interrupted twice" after SIGINT of this
# harness, or None.
Result = namedtuple("Result", "code signal stopped wall cpu memory stdout stderr left_running")


def run(command, folder, streams, stdin=None, interrupt=False):
    """Runs `command` in `folder`, with its output in files that begin with `streams`.

    With `interrupt`, a long job gets SIGINT before its time is over, at most twice.
    """
    # dash takes one limit per `ulimit`; a system may lack one.
    limits = "".join(f"ulimit {limit} 2>/dev/null; " for limit in (
        f"-t {CPU_SECONDS + 1}", f"-f {FILE_BYTES // 512}", f"-n {OPEN_FILES}",
        f"-d {DATA_BYTES // 1024}", "-c 0")) + 'exec "$@"'
    with open(f"{streams}.out", "wb") as out, open(f"{streams}.err", "wb") as err, \
            open(stdin or os.devnull, "rb") as given:
        began = time.monotonic()
        child = subprocess.Popen(["sh", "-c", limits, "sh", *command], cwd=folder, stdin=given,
                                 stdout=out, stderr=err, env=environment(),
                                 start_new_session=True)
        status, usage, stopped = wait(child.pid, began, interrupt)
        child.returncode = 0
    wall = time.monotonic() - began
    left = end_group(child.pid)
    code = os.WEXITSTATUS(status) if os.WIFEXITED(status) else None
    ended = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    # Linux counts kilobytes, macOS bytes.
    unit = 1 if os.uname().sysname == "Darwin" else 1024
    return Result(code, ended, stopped, wall, usage.ru_utime + usage.ru_stime,
                  usage.ru_maxrss * unit, head(f"{streams}.out"), head(f"{streams}.err"), left)


def environment():
    """The environment of a case: one thread of OpenBLAS, no colours, no language, no network."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "TMPDIR") if name in os.environ}
    return {**kept, "OPENBLAS_NUM_THREADS": "1", "LC_ALL": "C.UTF-8", "NO_COLOR": "1",
            "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": "cache"}


def wait(pid, began, interrupt):
    """Waits for the process; interrupts or kills it at its limits."""
    pause, stopped, sent = 0.004, None, 0
    while True:
        done, status, usage = os.wait4(pid, os.WNOHANG)
        if done:
            return status, usage, stopped
        time.sleep(pause)
        pause = min(pause * 1.3, 0.05)
        wall = time.monotonic() - began
        if wall < 1:
            continue
        cpu = cpu_seconds(pid)
        late = sent < 2 and (cpu > INTERRUPT_CPU[sent] or wall > INTERRUPT_WALL[sent])
        if interrupt and late and stopped != "killed":
            sent += 1
            stopped = "interrupted" if sent == 1 else "interrupted twice"
            signal_group(pid, signal.SIGINT)
        if stopped != "killed" and (cpu > CPU_SECONDS or wall > WALL_SECONDS):
            stopped = "killed"
            signal_group(pid, signal.SIGKILL)


def cpu_seconds(pid):
    """CPU time of the process, where /proc has it; elsewhere `ulimit -t` ends the process."""
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as file:
            fields = file.read().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    except (OSError, IndexError, ValueError):
        return 0.0


def signal_group(pid, number):
    try:
        os.killpg(pid, number)
        return True
    except (ProcessLookupError, PermissionError):
        return False


def end_group(pid):
    """Ends processes that the command left running; True if there were any."""
    # A child that ends together with its parent needs a moment.
    for _ in range(20):
        if not signal_group(pid, 0):
            return False
        time.sleep(0.05)
    return signal_group(pid, signal.SIGKILL)


def head(path):
    with open(path, "rb") as file:
        return file.read(KEPT_BYTES)


def shell(command, folder, stdin=None):
    """The command as a line for a shell."""
    line = " ".join(shlex.quote(part) for part in command)
    given = f" < {shlex.quote(str(stdin))}" if stdin else ""
    return f"cd {shlex.quote(str(folder))} && OPENBLAS_NUM_THREADS=1 {line}{given}"
