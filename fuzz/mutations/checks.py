"""The checks of a case: each returns the problems of a result."""

import json
import os
import re
import stat
import unicodedata

from process import CPU_SECONDS, KEPT_BYTES, MEMORY_BYTES, WALL_SECONDS

MAX_STDERR = 2048
MAX_LINES = 12
EXIT_CODES = (0, 1, 2)
INTERRUPTED = 130
# Names of unfinished files, beside those that begin with a dot.
UNFINISHED = re.compile(r"\.(partial|tmp|temp|replaced|new|old)\b|^tmp|~$")
# Targets of links that take the place of inputs.
DEVICES = ("/dev/null", "/dev/zero")


def listing(folder):
    """The entries under `folder` by their relative paths, with what identifies their contents."""
    found = {}
    for place, folders, files in os.walk(folder):
        for name in folders + files:
            path = os.path.join(place, name)
            found[os.path.relpath(path, folder)] = entry(path)
    return found


def entry(path):
    status = os.lstat(path)
    if stat.S_ISDIR(status.st_mode):
        return ("folder",)
    if stat.S_ISLNK(status.st_mode):
        return ("link", os.readlink(path))
    return ("file", status.st_size, status.st_mtime_ns, status.st_ino)


def problems(case, result, before, after):
    """Violations of a case, as pairs of the check's name and what was found."""
    text = result.stderr.decode("utf-8", "replace")
    yield from ended(case, result, text)
    yield from resources(case, result)
    yield from devices()
    # A second interrupt ends a process at once.
    if result.stopped in (None, "interrupted"):
        yield from entries(case, result, before, after)
    yield from messages(result, text)
    if "--json" in case.command and result.code == 0:
        if len(result.stdout) < KEPT_BYTES:
            yield from json_lines(result.stdout)
    elif case.prints_names:
        yield from controls("stdout", result.stdout)
    if case.must_succeed and result.code != 0:
        yield "valid input", f"exit code {result.code}: {first_line(text)}"
    if case.must_fail and result.code == 0:
        yield "silent", "exit code 0 with weights that are not finite"


def ended(case, result, text):
    if "panicked" in text or result.code == 101:
        yield "panic", first_line(text, "panicked")
    if result.signal is not None and result.stopped != "killed" and result.signal != 24:
        if not (excused_memory(case, result, text) or result.stopped and result.signal == 2):
            yield "signal", f"signal {result.signal}: {first_line(text)}"
    codes = EXIT_CODES + ((INTERRUPTED,) if result.stopped else ())
    if result.code is not None and result.code not in codes and result.code != 101:
        yield "exit code", f"exit code {result.code}: {first_line(text)}"
    if result.left_running:
        yield "process", "a process is still running"


def devices():
    for path in DEVICES:
        if not stat.S_ISCHR(os.stat(path).st_mode):
            yield "device", f"{path} is a file: a link to it was followed"


def excused_memory(case, result, text):
    """True if an option asks for memory beyond the harness' limit, but not beyond reason."""
    out = "memory allocation of" in text or "bad_alloc" in text or result.memory > MEMORY_BYTES
    return case.kind == "option" and out and not case.extreme


def notes(case, result):
    """What is no violation, but worth a line."""
    text = result.stderr.decode("utf-8", "replace")
    if result.signal is not None and excused_memory(case, result, text):
        yield "ended at the harness' limit of memory, which the option may need"
    if result.stopped in ("interrupted", "interrupted twice"):
        yield f"a long job, {result.stopped}"


def resources(case, result):
    if result.stopped == "killed" or result.signal == 24:
        yield "hang", f"no end after {result.cpu:.0f} s of CPU time, {result.wall:.0f} s in all"
    elif result.stopped == "interrupted twice" and case.kind == "file":
        yield "hang", "no end after SIGINT"
    elif result.stopped and case.extreme and case.reports() and not result.stdout:
        yield "hang", f"no event after {result.cpu:.0f} s of CPU time"
    elif result.cpu > CPU_SECONDS or result.wall > WALL_SECONDS:
        yield "hang", f"{result.cpu:.0f} s of CPU time, {result.wall:.0f} s in all"
    if result.memory > MEMORY_BYTES and (case.kind == "file" or case.extreme):
        yield "memory", f"{result.memory >> 20} MB"


def entries(case, result, before, after):
    """Files that appeared, changed or are gone, which should not be."""
    changed = {path for path in before.keys() | after.keys() if before.get(path) != after.get(path)}
    for path in sorted(changed):
        if path in after and path not in before and unfinished(path):
            yield "left over", path
    inputs = [path for path in sorted(changed) if not case.is_output(path)]
    if inputs:
        yield "input changed", ", ".join(inputs[:3])
    # An interrupted job keeps what it finished.
    if result.code in (1, 2) and result.stopped is None:
        outputs = [path for path in sorted(changed) if case.is_output(path)]
        if outputs and not (case.trains and trained(after)):
            yield "partial output", ", ".join(outputs[:3])


def unfinished(path):
    name = os.path.basename(path)
    return name.startswith(".") or bool(UNFINISHED.search(name))


def trained(after):
    """True if a run saved its state or recorded a step, so that its folder has a use."""
    return any(path.endswith("training_state.safetensors")
               or path.endswith("metrics.jsonl") and what[0] == "file" and what[1] > 0
               for path, what in after.items())


def messages(result, text):
    if result.code in (1, 2):
        if not text.strip():
            yield "message", "no message"
        if len(result.stderr) > MAX_STDERR:
            yield "message", f"{len(result.stderr)} bytes: {first_line(text)}"
        elif text.count("\n") > MAX_LINES:
            yield "message", f"{text.count(chr(10))} lines: {first_line(text)}"
    yield from controls("stderr", result.stderr)


def controls(stream, data):
    """Characters that change what a terminal shows."""
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        # The kept part of a stream may end inside a character.
        text = data[:error.start].decode("utf-8")
        if error.start < len(data) - 4:
            yield "control", f"{stream}: invalid UTF-8"
    found = sorted({c for c in text if c != "\n" and unicodedata.category(c) in ("Cc", "Cf")})
    if found:
        yield "control", f"{stream}: " + " ".join(f"U+{ord(c):04X}" for c in found[:5])


def json_lines(data):
    def refuse(word):
        raise ValueError(word)

    try:
        text = data.decode("utf-8")
        try:
            json.loads(text, parse_constant=refuse)
        except ValueError:
            for line in text.splitlines():
                json.loads(line, parse_constant=refuse)
    except ValueError as error:
        yield "json", f"stdout: {error}"


def first_line(text, word=""):
    lines = [line for line in text.splitlines() if line.strip() and word in line]
    return lines[0][:200] if lines else ""


def named(case, result):
    """True if the message names what was mutated. An option may ask for a file beyond the harness'
    limit of its size; the message names the file then."""
    text = result.stderr.decode("utf-8", "replace")
    at_limit = case.kind == "option" and "File too large (os error 27)" in text
    return at_limit or any(name in text for name in case.names)
