"""Lets the variable OPENELM_NAX select MLX's NAX kernels (the matrix units of M5 and A19) of a build
that compiles its kernels on the device, instead of the minimum system. MLX then compiles them on
systems of at least 26.2 only, in the language version of that system.

    apple/nax.py SOURCES          SOURCES is the folder of MLX's sources

Edits MLX's CMake rules in place; a second run changes nothing. Standard library only."""

import re
import sys
from pathlib import Path

RULES = "mlx/backend/metal/CMakeLists.txt"
CONDITION = re.compile(
    r"if\(MLX_METAL_VERSION GREATER_EQUAL 400\s+AND MACOS_SDK_VERSION VERSION_GREATER_EQUAL 26\.2\s+"
    r"AND CMAKE_OSX_DEPLOYMENT_TARGET VERSION_GREATER_EQUAL 26\.2\)"
)
SELECTED = "if(OPENELM_NAX)"
DEVICE = "mlx/backend/metal/device.cpp"
# Without these, an older system would compile or run the kernels.
CHECKS = {
    "the check of the system in is_nax_available": re.compile(
        r"bool is_nax_available\(\) \{(?:(?!\n\}).)*__builtin_available\(\s*macOS 26\.2, iOS 26\.2,", re.S
    ),
    "the language version of the running system": re.compile(
        r"__builtin_available\(macOS 26, iOS 26,[^{]*\{\s*return MTL::LanguageVersion4_0;.*"
        r"options->setLanguageVersion\(get_metal_version\(\)\)",
        re.S,
    ),
}


class Unexpected(Exception):
    """Other sources than expected; the message is the reason."""


def select(sources):
    """Edits the rules below `sources`, after it has checked the sources that make this safe."""
    device = (sources / DEVICE).read_text()
    for what, pattern in CHECKS.items():
        if not pattern.search(device):
            raise Unexpected(f"{sources / DEVICE}: {what} is missing; apple/nax.py expects MLX 0.32.2")
    rules = (sources / RULES).read_text()
    if rules.count(SELECTED) == 1 and not CONDITION.search(rules):
        return
    edited, count = CONDITION.subn(SELECTED, rules)
    if count != 1:
        raise Unexpected(f"{sources / RULES}: expected one condition for the NAX kernels, found {count}; apple/nax.py expects MLX 0.32.2")
    (sources / RULES).write_text(edited)


def main(words):
    if len(words) != 1:
        print("nax: usage: apple/nax.py SOURCES", file=sys.stderr)
        return 1
    try:
        select(Path(words[0]))
    except (Unexpected, OSError) as error:
        print(f"nax: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
