"""Tests of release/release.py and release/platforms.py with generated files: valid, or with one
defect each."""

import contextlib
import hashlib
import io
import json
import os
import plistlib
import shutil
import struct
import subprocess
import tempfile
import unittest
import zipfile
from pathlib import Path

import platforms
import release

ROOT = Path(__file__).resolve().parent.parent
NUMBERS = {"macos": 1, "ios": 2, "ios-simulator": 7}
SWIFT = ROOT / ".mlx/swift/root/usr/libexec/swift/bin/swift"


def mach_object(platform=None, minimum=(17, 0)):
    """A Mach-O object with load commands only."""
    commands = [struct.pack("<2I", 0x2, 24) + bytes(16)]
    if platform:
        commands.append(struct.pack("<6I", 0x32, 24, NUMBERS[platform], minimum[0] << 16 | minimum[1] << 8, 0, 0))
    return struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 1, len(commands), sum(map(len, commands)), 0, 0) + b"".join(commands)


def library(*objects):
    """A static library with an index and objects with long names."""
    data = b"!<arch>\n"
    for name, content in [("__.SYMDEF SORTED", b"odd"), *((f"a_name_of_some_length_{n}.o", one) for n, one in enumerate(objects))]:
        padded = name.encode().ljust(28, b"\0")
        size = len(padded) + len(content)
        data += f"#1/{len(padded)}".ljust(16).encode() + b"0           0     0     100644  " + str(size).ljust(10).encode() + b"`\n"
        data += padded + content + b"\n" * (size % 2)
    return data


def kernels(platform, minimum, size=64):
    system = {"macos": 0x81, "ios": 0x82}[platform]
    return struct.pack("<4s3HxB2HQ", b"MTLB", 0x8001 if platform == "macos" else 1, 2, 7, system, *minimum, size).ljust(size, b"\0")


def make_framework(folder, package):
    """The result of `xcodebuild -create-xcframework` for three libraries."""
    entries = []
    for identifier, (platform, minimum) in release.SLICES.items():
        headers = folder / identifier / "Headers" / release.NAME
        headers.mkdir(parents=True)
        for name in (f"{release.NAME}.h", "module.modulemap"):
            shutil.copy(package / "swift/Sources" / release.NAME / name, headers)
        (folder / identifier / "libopenelm_ffi.a").write_bytes(library(mach_object(platform, minimum), mach_object(platform, (11, 0)), mach_object()))
        system, _, variant = platform.partition("-")
        entries.append({"LibraryIdentifier": identifier, "LibraryPath": "libopenelm_ffi.a", "BinaryPath": "libopenelm_ffi.a", "HeadersPath": "Headers",
                        "SupportedArchitectures": ["arm64"], "SupportedPlatform": system, **({"SupportedPlatformVariant": variant} if variant else {})})
    info = {"AvailableLibraries": entries, "CFBundlePackageType": "XFWK", "XCFrameworkFormatVersion": "1.0"}
    (folder / "Info.plist").write_bytes(plistlib.dumps(info))


class Release(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.package = Path(folder.name) / "package"
        shutil.copytree(ROOT / "swift/Sources" / release.NAME, self.package / "swift/Sources" / release.NAME)
        for name in ("Package.swift", "Cargo.toml"):
            shutil.copy(ROOT / name, self.package)
        self.out = Path(folder.name) / "out"
        self.framework = self.out / "COpenELMFFI.xcframework"
        self.archive = self.out / "COpenELMFFI.xcframework.zip"
        make_framework(self.framework, self.package)
        (self.out / "kernels").mkdir()
        for platform, minimum in release.KERNELS.items():
            (self.out / f"kernels/mlx-0.32.2-{platform}.metallib").write_bytes(kernels(platform, minimum))
        (self.out / "links").mkdir()
        for name in ("macos", "ios", "ios-simulator"):
            (self.out / f"links/{name}.txt").write_text("-framework CoreFoundation -liconv -lSystem -lc -lm\n")

    def run_release(self, *words):
        output = io.StringIO()
        with contextlib.redirect_stderr(output), contextlib.redirect_stdout(io.StringIO()):
            status = release.main([*map(str, words), "--package", str(self.package)])
        return status, output.getvalue()

    def pack(self, *more):
        return self.run_release("pack", self.out, "--mlx", "0.32.2", *more)

    def fails(self, words, *more):
        status, output = self.pack(*more)
        self.assertEqual(status, 1)
        self.assertIn(words, output)
        self.assertEqual(output.count("\n"), 1, output)

    def test_valid_framework_is_packed_and_described(self):
        self.assertEqual(self.pack(), (0, ""))
        found = json.loads((self.out / "release.json").read_text())
        self.assertEqual([one["slice"] for one in found["slices"]], list(release.SLICES))
        self.assertEqual([one["objects"] for one in found["slices"]], [3, 3, 3])
        self.assertEqual([(one["file"], one["minimum"]) for one in found["kernels"]],
                         [("mlx-0.32.2-macos.metallib", "14.0"), ("mlx-0.32.2-ios.metallib", "17.0")])
        data = self.archive.read_bytes()
        self.assertEqual(found["archive"], {"file": self.archive.name, "bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()})
        self.assertEqual(found["budget"]["archive"], {"bytes": len(data), "limit": 200_000_000})
        self.assertEqual((found["version"], found["mlx"]), ("0.1.0", "0.32.2"))
        names = zipfile.ZipFile(self.archive).namelist()
        self.assertIn("COpenELMFFI.xcframework/ios-arm64/Headers/COpenELMFFI/module.modulemap", names)
        self.assertIn("COpenELMFFI.xcframework/Info.plist", names)

    def test_libraries_with_kernels_for_matrix_units_are_marked(self):
        source = mach_object("ios") + b'R"preamble(\n#include <MetalPerformancePrimitives/MetalPerformancePrimitives.h>\n)preamble"'
        (self.framework / "ios-arm64/libopenelm_ffi.a").write_bytes(library(source))
        self.assertEqual(self.pack(), (0, ""))
        slices = json.loads((self.out / "release.json").read_text())["slices"]
        self.assertEqual([(one["slice"], one["nax"]) for one in slices], [("macos-arm64", False), ("ios-arm64", True), ("ios-arm64-simulator", False)])

    def test_the_same_files_give_the_same_archive(self):
        self.pack()
        first = self.archive.read_bytes()
        for path in self.framework.rglob("*"):
            os.utime(path, (1, 1))
        self.pack()
        self.assertEqual(self.archive.read_bytes(), first)

    def test_slices(self):
        path = self.framework / "ios-arm64/libopenelm_ffi.a"
        good = path.read_bytes()
        for objects, words in (
            ([mach_object("ios-simulator")], "a_name_of_some_length_0.o is for ios-simulator, expected ios"),
            ([mach_object("ios"), mach_object("macos")], "a_name_of_some_length_1.o is for macos, expected ios"),
            ([mach_object("ios", (18, 2))], "needs ios 18.2, expected 17.0"),
            ([mach_object(), mach_object()], "0 of 2 objects have"),
            ([b"\x7fELF" + bytes(60)], "not a Mach-O object for arm64"),
            ([mach_object("ios")[:40]], "truncated load commands"),
        ):
            path.write_bytes(library(*objects))
            self.fails(words)
        path.write_bytes(good[:-9])
        self.fails("truncated within member")
        path.write_bytes(b"no")
        self.fails("not a static library")
        path.unlink()
        self.fails("No such file")

    def test_slice_descriptions(self):
        path = self.framework / "Info.plist"
        info = plistlib.loads(path.read_bytes())
        info["AvailableLibraries"][2]["SupportedArchitectures"] = ["arm64", "x86_64"]
        path.write_bytes(plistlib.dumps(info))
        self.fails("expected ios-simulator on arm64")
        del info["AvailableLibraries"][2]
        path.write_bytes(plistlib.dumps(info))
        self.fails("expected the slices macos-arm64, ios-arm64, ios-arm64-simulator, found ios-arm64, macos-arm64")
        path.unlink()
        self.fails("not an XCFramework")

    def test_headers_equal_the_package_headers_in_the_module_folder(self):
        header = self.framework / "ios-arm64/Headers/COpenELMFFI/COpenELMFFI.h"
        header.write_text(header.read_text() + "\n")
        self.fails("COpenELMFFI.h is not the package's")
        header.parent.rename(header.parent.with_name("Other"))
        self.fails("No such file")

    def test_kernels(self):
        ios = self.out / "kernels/mlx-0.32.2-ios.metallib"
        for data, words in (
            (kernels("macos", (17, 0)), "expected ios 17.0, found macos 17.0"),
            (kernels("ios", (26, 0)), "expected ios 17.0, found ios 26.0"),
            (kernels("ios", (17, 0))[:-1], "expected 64 bytes, found 63"),
            (b"version https://git-lfs", "not a Metal library"),
        ):
            ios.write_bytes(data)
            self.fails(words)
        ios.rename(ios.with_name("mlx-0.31.1-ios.metallib"))
        self.fails("found mlx-0.31.1-ios.metallib, mlx-0.32.2-macos.metallib")

    def test_linked_libraries(self):
        (self.out / "links/ios.txt").write_text("-framework Security -liconv -lz\n")
        self.fails("Package.swift does not link -framework Security, -lz")

    def test_budgets(self):
        (self.out / "kernels/mlx-0.32.2-ios.metallib").write_bytes(kernels("ios", (17, 0), 9_000_000))
        self.fails("9.0 MB, more than the budget of 8 MB")
        self.assertEqual(self.pack("--kernels-limit", "180"), (0, ""))
        self.fails("more than the budget of 0 MB", "--archive-limit", "0", "--kernels-limit", "180")

    def test_pin_writes_address_and_checksum(self):
        self.pack()
        before = (self.package / "Package.swift").read_text()
        address = "https://example.org/v0.1.0/COpenELMFFI.xcframework.zip"
        self.assertEqual(self.run_release("pin", address, self.out), (0, ""))
        after = (self.package / "Package.swift").read_text()
        checksum = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        changed = [line for line in after.splitlines() if line not in before.splitlines()]
        self.assertEqual(changed, [f'let releaseAddress = "{address}"', f'let releaseChecksum = "{checksum}"'])
        for bad in ("http://example.org/a.zip", "https://example.org/a.tar", 'https://example.org/".zip'):
            self.assertIn("expected https", self.run_release("pin", bad, self.out)[1])
        with self.archive.open("ab") as file:
            file.write(b"more")
        self.assertIn("differs from release.json", self.run_release("pin", address, self.out)[1])

    @unittest.skipUnless(SWIFT.exists(), "make setup-swift")
    def test_the_manifest_for_apple_systems(self):
        """The manifest as a consumer's computer reads it, except for the platform."""
        def core(pinned):
            if pinned:
                self.pack()
                self.run_release("pin", "https://example.org/a.zip", self.out)
            path = self.package / "Package.swift"
            path.write_text(path.read_text().replace("#if os(Linux)", "#if os(Windows)"))
            environment = {key: value for key, value in os.environ.items() if key != "OPENELM_LIBRARY_DIR"}
            environment["PATH"] = f"{SWIFT.parent}:{environment['PATH']}"
            result = subprocess.run(["swift", "package", "--package-path", self.package, "dump-package"], env=environment, capture_output=True, text=True)
            self.assertEqual(result.returncode, 0, result.stderr)
            self.assertNotIn("unsafeFlags", result.stdout)
            self.assertNotIn("OPENELM_SYSTEM_LIBRARY", result.stdout)
            return next(target for target in json.loads(result.stdout)["targets"] if target["name"] == release.NAME)

        local = core(False)
        self.assertEqual((local["type"], local["path"]), ("binary", "out/xcframework/COpenELMFFI.xcframework"))
        pinned = core(True)
        checksum = hashlib.sha256(self.archive.read_bytes()).hexdigest()
        self.assertEqual((pinned["type"], pinned["url"], pinned["checksum"]), ("binary", "https://example.org/a.zip", checksum))

    def test_the_privacy_manifest(self):
        found = plistlib.loads((ROOT / "swift/Sources/OpenELM/Resources/PrivacyInfo.xcprivacy").read_bytes())
        self.assertEqual((found["NSPrivacyTracking"], found["NSPrivacyTrackingDomains"], found["NSPrivacyCollectedDataTypes"]), (False, [], []))
        # Sizes and times of the app's own files (C617.1), and of files chosen by the user (3B52.1).
        # Free space before a download (E174.1).
        self.assertEqual(found["NSPrivacyAccessedAPITypes"], [{
            "NSPrivacyAccessedAPIType": "NSPrivacyAccessedAPICategoryFileTimestamp", "NSPrivacyAccessedAPITypeReasons": ["C617.1", "3B52.1"]}, {
            "NSPrivacyAccessedAPIType": "NSPrivacyAccessedAPICategoryDiskSpace", "NSPrivacyAccessedAPITypeReasons": ["E174.1"]}])


class Draft(unittest.TestCase):
    """A release without GitHub: a scratch clone, and stand-ins for what `make xcframework` makes there."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.clone = Path(folder.name).resolve() / "clone"
        if not (ROOT / ".git").exists():
            self.skipTest("this is no git clone")
        subprocess.run(["git", "clone", "--quiet", "--shared", ROOT, self.clone], check=True)
        # What is here may be newer than the last commit.
        shutil.copytree(ROOT / "release", self.clone / "release", dirs_exist_ok=True, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Package.swift", "Cargo.toml", "CHANGELOG.md"):
            shutil.copy(ROOT / name, self.clone)
        self.git("add", "--all")
        self.git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--allow-empty", "--message", "Test")
        self.out = self.clone / "out/xcframework"
        make_framework(self.out / "COpenELMFFI.xcframework", self.clone)
        for name in ("kernels", "links", "licences"):
            (self.out / name).mkdir()
        for platform, minimum in release.KERNELS.items():
            (self.out / f"kernels/mlx-0.32.2-{platform}.metallib").write_bytes(kernels(platform, minimum))
        for name in ("macos", "ios", "ios-simulator"):
            (self.out / f"links/{name}.txt").write_text("-framework CoreFoundation -liconv -lSystem -lc -lm\n")
        (self.out / "licences/mlx.txt").write_text("MIT")
        self.run_in_clone("python3", "-B", "release/release.py", "pack", "out/xcframework", "--mlx", "0.32.2")

    def run_in_clone(self, *words, status=0, **environment):
        said = subprocess.run(words, cwd=self.clone, env={**os.environ, **environment}, capture_output=True, text=True)
        self.assertEqual(said.returncode, status, said.stderr)
        return said

    def git(self, *words):
        return self.run_in_clone("git", *words).stdout

    def draft(self, *words, **more):
        return self.run_in_clone("release/draft.sh", "https://example.org/openelm/openelm", *words, **more)

    def test_a_dry_run_makes_archive_checksum_and_manifest(self):
        before = (self.clone / "Package.swift").read_text()
        said = self.draft("--dry-run")
        archive = self.out / "COpenELMFFI.xcframework.zip"
        checksum = hashlib.sha256(archive.read_bytes()).hexdigest()
        self.assertEqual((self.out / f"{archive.name}.sha256").read_text(), f"{checksum}  {archive.name}\n")
        files = [archive.name, f"{archive.name}.sha256", "release.json", "licences.tar.gz"]
        self.assertEqual(said.stdout.splitlines()[-4:], [f"out/xcframework/{name}" for name in files])
        for name in files:
            self.assertTrue((self.out / name).stat().st_size)
        self.assertIn("OpenELM", (self.out / "notes.md").read_text())
        after = (self.clone / "Package.swift").read_text()
        address = "https://example.org/openelm/openelm/releases/download/0.1.0/COpenELMFFI.xcframework.zip"
        changed = [line for line in after.splitlines() if line not in before.splitlines()]
        self.assertEqual(changed, [f'let releaseAddress = "{address}"', f'let releaseChecksum = "{checksum}"'])
        folder = "swift/Sources/OpenELM/Resources/Kernels"
        self.assertEqual(self.git("show", "--format=%s", "--name-only").split("\n"), ["Release 0.1.0", "", "Package.swift",
                         f"{folder}/mlx-0.32.2-ios.metallib", f"{folder}/mlx-0.32.2-macos.metallib", ""])
        self.assertEqual(self.git("status", "--porcelain"), "")

    def test_what_does_not_fit_stops_it(self):
        def stops(words, *options):
            said = self.draft(*options, status=1)
            self.assertEqual(said.stderr.count("\n"), 1, said.stderr)
            self.assertIn(words, said.stderr)

        stops("unexpected --dryrun; usage:", "--dryrun")
        stops("expected the branch release/0.1.0")
        path = self.clone / "Cargo.toml"
        path.write_text(path.read_text() + "\n")
        stops("changes that are not committed", "--dry-run")
        path.write_text(path.read_text().replace('version = "0.1.0"', 'version = "0.2.0"', 1))
        stops("out/xcframework is of version 0.1.0, Cargo.toml says 0.2.0", "--dry-run")
        self.git("checkout", "--quiet", "Cargo.toml")
        self.git("-c", "user.name=test", "-c", "user.email=test@localhost", "commit", "--quiet", "--allow-empty", "--message", "More")
        stops("out/xcframework was built from commit", "--dry-run")

    def test_the_tag_publishes_the_archive_that_the_manifest_names(self):
        self.draft("--dry-run")
        # Stands in for GitHub's program: a release with the archive.
        gh = self.clone / "bin/gh"
        gh.parent.mkdir()
        gh.write_text('#!/bin/sh\necho "$*" >>"$GH_LOG"\n[ "$2" != download ] || cp out/xcframework/COpenELMFFI.xcframework.zip "$7"\n')
        gh.chmod(0o755)
        log = self.clone / "gh.log"
        more = {"PATH": f"{gh.parent}:{os.environ['PATH']}", "GH_LOG": str(log)}
        words = ("release/promote.sh", "0.1.0", "https://example.org/openelm/openelm")
        self.run_in_clone(*words, **more)
        self.assertEqual(log.read_text().splitlines()[-1], "release edit 0.1.0 --draft=false")
        with (self.out / "COpenELMFFI.xcframework.zip").open("ab") as file:
            file.write(b"more")
        log.write_text("")
        self.assertIn("the draft's archive has the checksum", self.run_in_clone(*words, status=1, **more).stderr)
        self.git("checkout", "--quiet", "HEAD~1", "--", "Package.swift")
        self.assertIn("Package.swift names ''", self.run_in_clone(*words, status=1, **more).stderr)
        self.assertNotIn("edit", log.read_text())


class Platforms(unittest.TestCase):
    def test_old_load_commands_are_read(self):
        old = struct.pack("<8I", 0xFEEDFACF, 0x0100000C, 0, 1, 1, 16, 0, 0)
        self.assertEqual(platforms.of_object(old + struct.pack("<4I", 0x25, 16, 12 << 16 | 1 << 8, 0)), ("ios", (12, 1)))
        self.assertEqual(platforms.of_object(old + struct.pack("<4I", 0x24, 16, 11 << 16, 0)), ("macos", (11, 0)))

    def test_malformed_libraries_fail(self):
        with self.assertRaisesRegex(platforms.Broken, "malformed at byte 8"):
            list(platforms.members(b"!<arch>\n" + b"x" * 70))


if __name__ == "__main__":
    unittest.main()
