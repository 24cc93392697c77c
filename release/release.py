"""Makes a release from the result of apple/xcframework.sh. `pack` checks the XCFramework and the
GPU kernels, packs the XCFramework and writes the release manifest `release.json`. `pin` writes the
archive's address and checksum into Package.swift. Standard library only; runs on any system."""

import argparse
import hashlib
import json
import plistlib
import re
import subprocess
import sys
import zipfile
from pathlib import Path

from platforms import Broken, of_kernels, of_library

ROOT = Path(__file__).resolve().parent.parent
NAME = "COpenELMFFI"
# Slices as named by `xcodebuild -create-xcframework`: platform and minimum version.
SLICES = {
    "macos-arm64": ("macos", (14, 0)),
    "ios-arm64": ("ios", (17, 0)),
    "ios-arm64-simulator": ("ios-simulator", (17, 0)),
}
KERNELS = {"macos": (14, 0), "ios": (17, 0)}
# A line of the sources of MLX's NAX kernels, which a library contains that compiles them on the device.
NAX = b"#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>"
MEGABYTE = 1_000_000


def digest(path):
    """The SHA-256, equal to `swift package compute-checksum` of an archive."""
    found = hashlib.sha256()
    with path.open("rb") as file:
        for block in iter(lambda: file.read(1 << 20), b""):
            found.update(block)
    return found.hexdigest()


def described(path, **more):
    return {"file": path.name, "bytes": path.stat().st_size, "sha256": digest(path), **more}


def check_slices(framework, package):
    """Returns the manifest's entries for the slices. Raises `Broken` for an invalid slice."""
    try:
        info = plistlib.loads((framework / "Info.plist").read_bytes())
        entries = {entry["LibraryIdentifier"]: entry for entry in info["AvailableLibraries"]}
    except (OSError, KeyError, plistlib.InvalidFileException) as error:
        raise Broken(f"{framework}: not an XCFramework ({error!r})") from error
    if set(entries) != set(SLICES):
        raise Broken(f"{framework}: expected the slices {', '.join(SLICES)}, found {', '.join(sorted(entries))}")
    found = []
    for identifier, (platform, minimum) in SLICES.items():
        entry = entries[identifier]
        system = "-".join(filter(None, (entry["SupportedPlatform"], entry.get("SupportedPlatformVariant"))))
        if (system, entry["SupportedArchitectures"]) != (platform, ["arm64"]):
            raise Broken(f"{identifier}: expected {platform} on arm64, found {system} on {entry['SupportedArchitectures']}")
        library = framework / identifier / entry["LibraryPath"]
        headers = framework / identifier / entry.get("HeadersPath", "") / NAME
        try:
            data = library.read_bytes()
            objects = of_library(data, platform, minimum)
            for name in (f"{NAME}.h", "module.modulemap"):
                # In a folder named after the module, because an app merges the headers of all
                # libraries.
                if (headers / name).read_bytes() != (package / "swift/Sources" / NAME / name).read_bytes():
                    raise Broken(f"{headers / name} is not the package's")
        except (OSError, Broken) as error:
            raise Broken(f"{identifier}: {error}") from error
        found.append(described(library, slice=identifier, platform=platform, minimum="{}.{}".format(*minimum), objects=objects, nax=NAX in data))
    return found


def check_kernels(folder, mlx):
    """Returns the manifest's entries for the kernels."""
    expected = {f"mlx-{mlx}-{platform}.metallib": platform for platform in KERNELS}
    names = sorted(path.name for path in folder.glob("*"))
    if names != sorted(expected):
        raise Broken(f"{folder}: expected {', '.join(sorted(expected))}, found {', '.join(names) or 'none'}")
    found = []
    for name, platform in expected.items():
        path = folder / name
        try:
            system, minimum = of_kernels(path.read_bytes())
        except Broken as error:
            raise Broken(f"{path}: {error}") from error
        if system != platform or minimum > KERNELS[platform]:
            raise Broken("{}: expected {} {}.{}, found {} {}.{}".format(path, platform, *KERNELS[platform], system, *minimum))
        found.append(described(path, platform=platform, minimum="{}.{}".format(*minimum)))
    return found


def check_links(folder, manifest):
    """Checks that Package.swift links rustc's native libraries; Swift links the system's."""
    linked = {f"-l{name}" for name in re.findall(r'\.linkedLibrary\("([^"]+)"', manifest)} | {"-lSystem", "-lc", "-lm", "-lobjc"}
    linked |= {f"-framework {name}" for name in re.findall(r'\.linkedFramework\("([^"]+)"', manifest)}
    for name in ("macos", "ios", "ios-simulator"):
        path = folder / f"{name}.txt"
        try:
            words = set(re.findall(r"-framework \S+|-l\S+", path.read_text()))
        except OSError as error:
            raise Broken(str(error)) from error
        if words - linked:
            raise Broken(f"{path}: Package.swift does not link {', '.join(sorted(words - linked))}")


def pack(framework, archive):
    """Writes a reproducible archive. It contains no links."""
    partial = archive.with_name(f".{archive.name}.partial")
    with zipfile.ZipFile(partial, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as out:
        for path in sorted(framework.rglob("*")):
            if path.is_file() and path.name != ".DS_Store":
                entry = zipfile.ZipInfo(f"{framework.name}/{path.relative_to(framework).as_posix()}", (1980, 1, 1, 0, 0, 0))
                entry.external_attr, entry.compress_type = 0o100644 << 16, zipfile.ZIP_DEFLATED
                with path.open("rb") as source, out.open(entry, "w", force_zip64=True) as target:
                    for block in iter(lambda: source.read(1 << 20), b""):
                        target.write(block)
    partial.replace(archive)


def budget(what, bytes_, megabytes):
    if bytes_ > megabytes * MEGABYTE:
        raise Broken(f"{what}: {bytes_ / MEGABYTE:.1f} MB, more than the budget of {megabytes} MB")
    return {"bytes": bytes_, "limit": megabytes * MEGABYTE}


def tool(*words):
    """The first line of a tool's output, or nothing if the tool is missing."""
    try:
        output = subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    return output.split("\n")[0] or None


def run_pack(options):
    framework = options.folder / f"{NAME}.xcframework"
    archive = options.folder / f"{NAME}.xcframework.zip"
    manifest = (options.package / "Package.swift").read_text()
    cargo = (options.package / "Cargo.toml").read_text()
    slices = check_slices(framework, options.package)
    kernels = check_kernels(options.folder / "kernels", options.mlx)
    check_links(options.folder / "links", manifest)
    pack(framework, archive)
    release = {
        "version": re.search(r'^version = "([^"]+)"', cargo, re.M).group(1),
        "mlx": options.mlx,
        "commit": tool("git", "rev-parse", "HEAD"),
        "rustc": tool("rustc", "--version"),
        "xcode": tool("xcodebuild", "-version"),
        "archive": described(archive),
        "slices": slices,
        "kernels": kernels,
        "budget": {
            "archive": budget(archive.name, archive.stat().st_size, options.archive_limit),
            "kernels": budget("the kernels of one system", max(one["bytes"] for one in kernels), options.kernels_limit),
        },
    }
    (options.folder / "release.json").write_text(json.dumps(release, indent=2) + "\n")
    print(f"{archive}: {archive.stat().st_size / MEGABYTE:.1f} MB, checksum {release['archive']['sha256']}")


def run_pin(options):
    release = json.loads((options.folder / "release.json").read_text())
    archive = options.folder / release["archive"]["file"]
    if digest(archive) != release["archive"]["sha256"]:
        raise Broken(f"{archive}: differs from release.json; pack it again")
    if not options.address.startswith("https://") or not options.address.endswith(".zip") or re.search(r'[\s"\\]', options.address):
        raise Broken(f"expected https://….zip, found {options.address}")
    path = options.package / "Package.swift"
    manifest = path.read_text()
    for name, value in (("releaseAddress", options.address), ("releaseChecksum", release["archive"]["sha256"])):
        manifest, count = re.subn(rf'^let {name} = "[^"]*"$', f'let {name} = "{value}"', manifest, flags=re.M)
        if count != 1:
            raise Broken(f"{path}: expected one line `let {name} = …`, found {count}")
    path.write_text(manifest)
    print(f"{path}: {options.address}, {release['archive']['sha256']}")


def main(words=None):
    parser = argparse.ArgumentParser(description=__doc__.split(";")[0])
    commands = parser.add_subparsers(required=True)
    one = commands.add_parser("pack", help="check and pack FOLDER/COpenELMFFI.xcframework, write FOLDER/release.json")
    one.add_argument("folder", type=Path)
    one.add_argument("--mlx", required=True, metavar="VERSION", help="the library's MLX")
    one.add_argument("--archive-limit", type=int, default=200, metavar="MB", help="size budget of the archive (default 200)")
    one.add_argument("--kernels-limit", type=int, default=8, metavar="MB", help="size budget of one system's kernels (default 8)")
    one.set_defaults(run=run_pack)
    two = commands.add_parser("pin", help="write the archive's address and checksum into Package.swift")
    two.add_argument("address", help="address of the archive: https://….zip")
    two.add_argument("folder", type=Path, nargs="?", default=ROOT / "out/xcframework")
    two.set_defaults(run=run_pin)
    for command in (one, two):
        command.add_argument("--package", type=Path, default=ROOT, help=argparse.SUPPRESS)
    options = parser.parse_args(words)
    try:
        options.run(options)
    except (Broken, OSError) as error:
        print(f"release: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
