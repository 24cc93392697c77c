"""Writes the Swift examples of Markdown files as compilable sources, one file per example.

Each example is wrapped in a function, with its imports before it. Names that examples use without
declaring them (`model`, `folder`, ...) are declared in another file. Examples that declare types,
such as an app's view, are written unchanged. All examples are included, but for those that import
FoundationModels, which `--foundation-models` writes instead.

    snippets.py [--foundation-models] TARGET FILE.md ...
"""

import argparse
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
# Names that examples use without declaring them.
CONTEXT = {
    "model": "LanguageModel",
    "session": "LanguageModelSession",
    "folder": "URL",
    "file": "URL",
    "data": "URL",
    "adapter": "URL",
    "smaller": "URL",
}
USUAL = "import Foundation\nimport OpenELM"
DECLARES_TYPES = re.compile(r"^(@\w+ )*(struct|class|final class|enum|actor|extension) ", re.MULTILINE)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--foundation-models", action="store_true")
    parser.add_argument("target", type=Path)
    parser.add_argument("files", type=Path, nargs="+")
    options = parser.parse_args()
    target = options.target
    context = "".join(f"var {word}: {kind} {{ fatalError() }}\n" for word, kind in CONTEXT.items())
    (target / "context.swift").write_text(f"{USUAL}\n{context}")
    count = 0
    for file in options.files:
        text = file.read_text()
        for match in re.finditer(r"^```swift\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
            if ("import FoundationModels\n" in match[1]) != options.foundation_models:
                continue
            line = text[: match.start()].count("\n") + 2
            source = write(match[1], f"example{count}", file, line)
            (target / f"example{count}.swift").write_text(source)
            count += 1
    if count == 0:
        sys.exit("snippets: no examples found")
    print(f"snippets: {count} examples")


def write(code, name, file, line):
    code_lines = code.splitlines()
    imports = [one for one in code_lines if one.startswith("import ")]
    head = "\n".join(imports) or USUAL
    place = f'#sourceLocation(file: "{file}", line: {line})'
    body = "\n".join("" if one.startswith("import ") else one for one in code_lines)
    if DECLARES_TYPES.search(code):
        return f"{head}\n{place}\n{body}\n"
    return f"{head}\nfunc {name}() async throws {{\n{place}\n{body}\n}}\n"


if __name__ == "__main__":
    main()
