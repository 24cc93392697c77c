"""Checks Chat.xcodeproj as far as that goes without Xcode: it can be read, everything it names by
number is there, and so are the files.
"""

import plistlib
import re
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
TOKEN = re.compile(r'\s+|//[^\n]*|/\*.*?\*/|([{}()=;,])|"((?:[^"\\]|\\.)*)"|([^\s{}()=;,"]+)', re.DOTALL)


def main():
    text = (HERE / "Chat.xcodeproj/project.pbxproj").read_text()
    tokens = [m[0] if m[2] is None else m[2] for m in TOKEN.finditer(text) if m[1] or m[2] is not None or m[3]]
    project, rest = value(tokens)
    check(not rest, f"there is more after the end: {rest[:3]}")
    objects = project["objects"]
    root = objects[project["rootObject"]]
    check(root["isa"] == "PBXProject", "the root is no project")

    used = {project["rootObject"]}
    for one in objects.values():
        used.update(number for number in strings(one) if re.fullmatch("[0-9A-F]{24}", number))
    check(used == objects.keys(), f"named or there, not both: {sorted(used ^ objects.keys())}")

    sources = [o for o in objects.values() if o["isa"] == "PBXFileSystemSynchronizedRootGroup"]
    check(len(sources) == 1 and list((HERE / sources[0]["path"]).glob("*.swift")), "no sources")
    package = next(o for o in objects.values() if o["isa"] == "XCLocalSwiftPackageReference")
    manifest = HERE / package["relativePath"] / "Package.swift"
    product = next(o for o in objects.values() if o["isa"] == "XCSwiftPackageProductDependency")
    check(f'.library(name: "{product["productName"]}"' in manifest.read_text(), "no such product")
    for one in objects.values():
        for setting, file in one.get("buildSettings", {}).items():
            if setting.startswith("CODE_SIGN_ENTITLEMENTS"):
                check(plistlib.loads((HERE / file).read_bytes()), f"{file} is empty")


def value(tokens):
    """The value at the beginning of the tokens, and the tokens after it."""
    first, rest = tokens[0], tokens[1:]
    if first == "{":
        found = {}
        while rest[0] != "}":
            key, (_equals, *rest) = rest[0], rest[1:]
            check(_equals == "=" and key not in found, f"at {key}")
            found[key], (_end, *rest) = value(rest)
            check(_end == ";", f"no semicolon after {key}")
        return found, rest[1:]
    if first == "(":
        found = []
        while rest[0] != ")":
            one, (_end, *rest) = value(rest)
            check(_end == ",", f"no comma after {one}")
            found.append(one)
        return found, rest[1:]
    return first, rest


def strings(thing):
    if isinstance(thing, dict):
        thing = list(thing.values())
    return [thing] if isinstance(thing, str) else [s for one in thing for s in strings(one)]


def check(holds, problem):
    if not holds:
        sys.exit(f"Chat.xcodeproj: {problem}")


if __name__ == "__main__":
    main()
