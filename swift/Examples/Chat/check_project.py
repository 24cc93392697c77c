"""Checks Chat.xcodeproj without Xcode: the file can be parsed, and all referenced objects and files
exist.
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
    check(not rest, f"data after the end: {rest[:3]}")
    objects = project["objects"]
    root = objects[project["rootObject"]]
    check(root["isa"] == "PBXProject", "the root is not a project")

    used = {project["rootObject"]}
    for one in objects.values():
        used.update(number for number in strings(one) if re.fullmatch("[0-9A-F]{24}", number))
    check(used == objects.keys(), f"only referenced or only defined: {sorted(used ^ objects.keys())}")

    resources = next(o for o in objects.values() if o["isa"] == "PBXResourcesBuildPhase")
    folders = [objects[objects[number]["fileRef"]] for number in resources["files"]]
    for one in folders:
        check(one["sourceTree"] == "SOURCE_ROOT" and (HERE / one["path"]).exists(), f"{one['path']} is missing")
    # `ChatEnvironment.standard()` looks for it in the bundle.
    check([one["name"] for one in folders] == ["tales"], "the sample is no resource")
    targets = [o for o in objects.values() if o["isa"] == "PBXNativeTarget"]
    check(all(number in targets[0]["buildPhases"] for number, o in objects.items() if o["isa"].endswith("BuildPhase")), "a phase is in no target")

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
    """Parses a value; returns it and the remaining tokens."""
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
