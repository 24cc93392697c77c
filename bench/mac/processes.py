"""Programs with their output in a log."""

import json
import os
import signal
import subprocess
import tempfile

# Seconds after which a program is ended: a GPU that hangs must not stop the other steps.
LIMIT = 2 * 60 * 60


class Failed(Exception):
    """A program ended with another status than 0, or without its result."""


def run(command, log, environment=None, stdout=None, limit=LIMIT):
    """The exit status of a program; a program that was ended, or not found, has one too."""
    words = [str(word) for word in command]
    log.write(f"$ {' '.join(words)}\n".encode())
    process = None
    # A signal while `Popen` runs waits until `process` is set: without it the program would go on.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT, signal.SIGTERM))
    try:
        process = subprocess.Popen(
            words,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=stdout or log,
            stderr=log,
            start_new_session=True,
            preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_SETMASK, before),
        )
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return process.wait(limit)
    except OSError as error:
        log.write(f"{error}\n".encode())
        return 127
    except subprocess.TimeoutExpired:
        log.write(f"ended after {limit} s\n".encode())
        return 124
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        if process and process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def read_json(command, log, environment=None):
    """The JSON object that a program prints.

    Raises Failed if it fails or prints something else.
    """
    name = " ".join(os.path.basename(str(word)) for word in command[:2])
    with tempfile.TemporaryFile() as output:
        status = run(command, log, environment, stdout=output)
        output.seek(0)
        text = output.read()
    log.write(text + b"\n")
    if status != 0:
        raise Failed(f"{name} ended with status {status}")
    try:
        return json.loads(text)
    except ValueError:
        raise Failed(f"{name}: expected a JSON object, found {text[:80]!r}") from None


def first_lines(command, count=1):
    """The first lines that a program prints, or None if it is missing or fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = done.stdout.strip().splitlines()[:count]
    return ", ".join(lines) if done.returncode == 0 and lines else None
