"""Lists the public API of the package under the marker line of swift/API.md, from its symbol graph.

Fails if the list is not current, or if a public symbol has no documentation.

    api.py OpenELM.symbols.json [--write]
"""

import argparse
import json
import re
import sys
from pathlib import Path

LIST = Path(__file__).resolve().parent / "API.md"
MARKER = "<!-- Generated below this line: make bindings -->\n"
SOURCES = LIST.parent / "Sources/OpenELM"
PRIVATE_SETTERS = {
    name
    for file in SOURCES.rglob("*.swift")
    for name in re.findall(r"public private\(set\) var (\w+)", file.read_text())
}
TYPES = ("swift.class", "swift.struct", "swift.enum", "swift.protocol")
# For FoundationModels of OS 27; only Macs with that SDK have them.
ELSEWHERE = ("OpenELMLanguageModel",)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("symbols", type=Path)
    parser.add_argument("--write", action="store_true")
    options = parser.parse_args()
    graph = json.loads(options.symbols.read_text())
    # Members that Swift synthesizes for a type are not documented here.
    symbols = [s for s in graph["symbols"] if "::SYNTHESIZED::" not in s["identifier"]["precise"]]
    symbols = [s for s in symbols if s["pathComponents"][0] not in ELSEWHERE]
    bare = [".".join(s["pathComponents"]) for s in symbols if not is_documented(s)]
    if bare:
        sys.exit("api: no documentation of " + ", ".join(sorted(bare)))

    head = LIST.read_text().split(MARKER)[0]
    text = head + MARKER + listing(symbols, conformances(graph))
    if options.write:
        LIST.write_text(text)
    elif text != LIST.read_text():
        sys.exit("api: swift/API.md is not current: run make bindings")


def is_documented(symbol):
    # `==`, `hash(into:)`, `encode(to:)` and similar members are derived, with their protocol's
    # documentation or none.
    derived = symbol["names"]["title"] in (
        "==(_:_:)", "init(from:)", "encode(to:)", "hash(into:)", "init(rawValue:)", "AsyncIterator",
        "RawValue", "Element",
    )
    return derived or bool(symbol.get("docComment"))


def conformances(graph):
    """Declared protocol conformances by type identifier."""
    found = {}
    for relation in graph["relationships"]:
        name = relation.get("targetFallback", "").removeprefix("Swift.")
        if relation["kind"] == "conformsTo" and name not in ("Copyable", "Escapable", "SendableMetatype"):
            found.setdefault(relation["source"], set()).add(name.split(".")[-1])
    return found


def listing(symbols, conforms):
    by_path = {tuple(s["pathComponents"]): s for s in symbols}
    types = sorted(p for p, s in by_path.items() if s["kind"]["identifier"] in TYPES)
    text = ""
    for top in (p for p in types if len(p) == 1):
        text += f"\n## {top[0]}\n\n```swift\n{block(by_path, symbols, top, conforms, 0)}```\n"
    return text


def block(by_path, symbols, path, conforms, depth):
    symbol = by_path[path]
    protocols = ", ".join(sorted(conforms.get(symbol["identifier"]["precise"], ())))
    line = declaration(symbol) + (f": {protocols}" if protocols else "")
    text = described(symbol, line, depth)
    members = [s for s in symbols if tuple(s["pathComponents"][:-1]) == path]
    for member in sorted(members, key=order):
        if member["kind"]["identifier"] in TYPES:
            text += block(by_path, symbols, tuple(member["pathComponents"]), conforms, depth + 1)
        elif is_shown(member):
            text += described(member, declaration(member), depth + 1)
    return text


def is_shown(symbol):
    return bool(symbol.get("docComment")) and symbol["names"]["title"] != "init(rawValue:)"


def order(symbol):
    kinds = ("swift.init", "swift.enum.case", "swift.property", "swift.type.property", "swift.method",
             "swift.type.method")
    kind = symbol["kind"]["identifier"]
    place = symbol.get("location", {}).get("position", {}).get("line", 0)
    return (kinds.index(kind) if kind in kinds else len(kinds), place, symbol["pathComponents"])


def declaration(symbol):
    text = " ".join("".join(f["spelling"] for f in symbol["declarationFragments"]).split())
    # The symbol graph lists a public setter for properties of @Observable types.
    if symbol["names"]["title"] in PRIVATE_SETTERS:
        text = text.replace("{ get set }", "{ get }")
    return text


def described(symbol, line, depth):
    lines = symbol.get("docComment", {"lines": []})["lines"]
    words = []
    for one in lines:
        if not one["text"].strip():
            break
        words.append(one["text"].strip())
    indent = "    " * depth
    comment = f"{indent}/// {' '.join(words)}\n" if words else ""
    return f"{comment}{indent}{line}\n"


if __name__ == "__main__":
    main()
