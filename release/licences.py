"""Prints the licences of all crates that the named packages link, with their licence texts.

Reads `cargo metadata` from standard input. Build-time and test-only dependencies are omitted.
"""

import json
import sys
from pathlib import Path


def main(roots):
    metadata = json.load(sys.stdin)
    packages = {package["id"]: package for package in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    waiting = [key for key, package in packages.items() if package["name"] in roots]
    if len(waiting) != len(roots):
        raise SystemExit(f"cargo metadata lacks one of {roots}")
    linked = set()
    while waiting:
        key = waiting.pop()
        if key in linked or "proc-macro" in packages[key]["targets"][0]["kind"]:
            continue
        linked.add(key)
        for dependency in nodes[key]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]):
                waiting.append(dependency["pkg"])
    for package in sorted((packages[key] for key in linked), key=lambda package: (package["name"], package["version"])):
        folder = Path(package["manifest_path"]).parent
        # A crate of this repository has its licence, except for translations of other programs.
        if package["source"] is None and not (folder / "NOTICE").is_file():
            continue
        print(f"{'=' * 80}\n{package['name']} {package['version']}: {package['license'] or 'see below'}")
        print(package["repository"] or "")
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name.upper().startswith(("LICEN", "COPYING", "NOTICE", "UNLICENSE")):
                print(f"--- {path.name}\n{path.read_text(errors='replace')}")


if __name__ == "__main__":
    main(sys.argv[1:])
