"""Checks Localizable.xcstrings against the sources, without Xcode: each string that the app shows is
in it, none is unused, and translations have the placeholders of their keys. With --write, adds and
removes keys.

A string of a view is each literal in a file that imports SwiftUI, except names of images, verbatim
text and output of `print`. Elsewhere it is the first argument of `localized`.
"""

import json
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
CATALOGUE = "Localizable.xcstrings"
# Arguments that are not shown, or shown as they are.
NOT_SHOWN = re.compile(r"\s*(systemImage|systemName|verbatim)\s*:")
PLACEHOLDER = re.compile(r"%(?:\d+\$)?@")
ESCAPES = {"n": "\n", "t": "\t", "0": "\0", "\\": "\\", '"': '"', "'": "'"}


def main(folder=HERE / "Chat", write=False):
    views, models = set(), set()
    for file in sorted(folder.glob("*.swift")):
        text = file.read_text()
        is_view = re.search(r"^\s*import SwiftUI$", text, re.MULTILINE)
        for key, call, index, argument in literals(text):
            if call == "localized" and index == 0:
                models.add(key)
            elif is_view and key.strip() and call != "print" and not NOT_SHOWN.match(argument):
                views.add(key)
    path = folder / CATALOGUE
    catalogue = json.loads(path.read_text()) if path.exists() else {"sourceLanguage": "en", "strings": {}, "version": "1.0"}
    found = catalogue["strings"]
    if write:
        found = catalogue["strings"] = {key: found.get(key, {}) for key in sorted(views | models)}
        for key, entry in found.items():
            # Xcode finds the keys of views alone, and would call the others stale.
            if key in views:
                entry.pop("extractionState", None)
            else:
                entry["extractionState"] = "manual"
        path.write_text(json.dumps(catalogue, indent=2, ensure_ascii=False, separators=(",", " : ")) + "\n")
    problems = [f"missing: {key!r}" for key in sorted((views | models) - found.keys())]
    problems += [f"not used: {key!r}" for key in sorted(found.keys() - views - models)]
    for key in sorted(found.keys() & (models - views)):
        if found[key].get("extractionState") != "manual":
            problems.append(f"Xcode does not find it, so its extractionState has to be manual: {key!r}")
    for key, entry in found.items():
        expected = len(PLACEHOLDER.findall(key))
        for language, value in translations(entry):
            if len(PLACEHOLDER.findall(value)) != expected:
                problems.append(f"{language}: expected {expected} placeholders as in {key!r}, found {value!r}")
    if problems:
        sys.exit("\n".join(f"{CATALOGUE}: {problem}" for problem in problems))
    print(f"{CATALOGUE}: {len(found)} strings")


def translations(entry):
    """All texts of an entry with their language, also those of variations."""
    for language, one in entry.get("localizations", {}).items():
        waiting = [one]
        while waiting:
            node = waiting.pop()
            if "value" in node:
                yield language, node["value"]
            waiting += [inner for inner in node.values() if isinstance(inner, dict)]


def literals(text):
    """The string literals of a source: the key, with %@ for each interpolation, the name of the call
    whose argument it is in, the argument's index, and the argument's text before it."""
    found = []
    position = 0
    # Open brackets: the name before each, the index of the current argument, and where it begins.
    brackets = [["", 0, 0]]
    while position < len(text):
        char = text[position]
        if text.startswith("//", position):
            position = text.find("\n", position) if "\n" in text[position:] else len(text)
            # A comment before an argument is no part of it.
            if not text[brackets[-1][2] : position].partition("//")[0].strip():
                brackets[-1][2] = position
            continue
        if text.startswith('"""', position):
            sys.exit("string literals of several lines are not read")
        if char == '"':
            name, index, start = brackets[-1]
            key, end, inner = literal(text, position)
            found.append((key, name, index, text[start:position]))
            found += inner
            position = end
            continue
        if char in "([{":
            name = re.search(r"(\w*)$", text[:position])[1] if char == "(" else ""
            brackets.append([name, 0, position + 1])
        elif char in ")]}" and len(brackets) > 1:
            brackets.pop()
        elif char == ",":
            brackets[-1][1:] = brackets[-1][1] + 1, position + 1
        position += 1
    return found


def literal(text, start):
    """Reads the literal at `start`; returns its key, its end, and the literals inside it."""
    key, position, inner = "", start + 1, []
    while text[position] != '"':
        if text[position] == "\n":
            sys.exit(f"a string literal does not end: {text[start:position]}")
        if text[position] != "\\":
            key += text[position]
            position += 1
        elif text[position + 1] == "(":
            depth, end = 1, position + 2
            while depth:
                if text[end] == '"':
                    _, end, _ = literal(text, end)
                    continue
                depth += {"(": 1, ")": -1}.get(text[end], 0)
                end += 1
            inner += literals(text[position + 2 : end - 1])
            key += "%@"
            position = end
        elif text[position + 1] == "u":
            digits, end = re.match(r"\{([0-9A-Fa-f]+)\}", text[position + 2 :])[1], text.index("}", position)
            key += chr(int(digits, 16))
            position = end + 1
        else:
            key += ESCAPES[text[position + 1]]
            position += 2
    return key, position + 1, inner


if __name__ == "__main__":
    main(write="--write" in sys.argv[1:])
