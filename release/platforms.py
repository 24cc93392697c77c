"""Finds the platform and the minimum version of static libraries of Mach-O objects and of Metal
libraries. Standard library only.

Formats: <ar.h> with BSD's long names, <mach-o/loader.h>; the header of a Metal library, as in MLX's
wheel for macOS.
"""

import struct

# Platform numbers of <mach-o/loader.h>.
MACH_O = {1: "macos", 2: "ios", 6: "mac-catalyst", 7: "ios-simulator"}
METAL = {0x81: "macos", 0x82: "ios", 0x86: "mac-catalyst", 0x87: "ios-simulator"}


class Broken(Exception):
    """An invalid file; the message is the reason."""


def members(data):
    """Yields the name and the bytes of every member of a static library, except its index."""
    if data[:8] != b"!<arch>\n":
        raise Broken("not a static library")
    at = 8
    while at < len(data):
        header = data[at : at + 60]
        if len(header) < 60 or header[58:] != b"`\n":
            raise Broken(f"malformed at byte {at}")
        name, size, start = header[:16].rstrip().decode(), int(header[48:58]), at + 60
        end = start + size
        if end > len(data):
            raise Broken(f"truncated within member {name}")
        if name.startswith("#1/"):
            length = int(name[3:])
            name = data[start : start + length].rstrip(b"\0").decode()
            start += length
        if not name.startswith("__.SYMDEF") and name not in ("/", "//"):
            yield name, data[start:end]
        at = end + end % 2


def of_object(data):
    """The platform and minimum version (major, minor) of an arm64 Mach-O object, or `None`."""
    if len(data) < 32 or struct.unpack_from("<2I", data) != (0xFEEDFACF, 0x0100000C):
        raise Broken("not a Mach-O object for arm64")
    at, commands = 32, struct.unpack_from("<I", data, 16)[0]
    for _ in range(commands):
        if at + 8 > len(data):
            raise Broken("truncated load commands")
        command, size = struct.unpack_from("<2I", data, at)
        if size < 8:
            raise Broken(f"a load command has {size} bytes")
        if command == 0x32:  # BUILD_VERSION
            platform, minimum = struct.unpack_from("<2I", data, at + 8)
            return MACH_O.get(platform, f"platform {platform}"), (minimum >> 16, minimum >> 8 & 255)
        if command in (0x24, 0x25):  # VERSION_MIN_MACOSX, _IPHONEOS
            minimum = struct.unpack_from("<I", data, at + 8)[0]
            return {0x24: "macos", 0x25: "ios"}[command], (minimum >> 16, minimum >> 8 & 255)
        at += size
    return None


def of_library(data, platform, minimum):
    """Returns the number of objects of a static library. Raises `Broken` for the first object that
    is not for `platform` with at most the version `minimum`. Assembly may lack a platform."""
    count = known = 0
    for name, content in members(data):
        try:
            made = of_object(content)
        except Broken as error:
            raise Broken(f"{name}: {error}") from error
        count += 1
        if made:
            known += 1
            if made[0] != platform:
                raise Broken(f"{name} is for {made[0]}, expected {platform}")
            if made[1] > minimum:
                raise Broken("{} needs {} {}.{}, expected {}.{}".format(name, platform, *made[1], *minimum))
    if known * 2 <= count:
        raise Broken(f"{known} of {count} objects have a platform")
    return count


def of_kernels(data):
    """The platform and minimum version (major, minor) of a Metal library."""
    if len(data) < 24 or data[:4] != b"MTLB":
        raise Broken("not a Metal library")
    system, major, minor, size = struct.unpack_from("<xB2HQ", data, 10)
    if size != len(data):
        raise Broken(f"expected {size} bytes, found {len(data)}")
    return METAL.get(system, f"system {system:#x}"), (major, minor)
