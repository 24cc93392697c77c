"""Tests of apple/xcframework.sh and apple/metal-xcrun.sh on any system: messages without Xcode, the
commands of a dry run, and a full run in a copy of this folder. Short programs replace Xcode, CMake
and Cargo there, and write files for the requested platform."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Each is Python; `words` are its arguments, `ROOT` is the copy's path. A run starts a hundred of
# them, so each imports only the modules it uses.
FAKES = {
    "uname": 'print("arm64" if words == ["-m"] else "Darwin")',
    "xcodebuild": """
if "-create-xcframework" in words:
    import shutil
    from pathlib import Path
    import test_release
    out = Path(words[words.index("-output") + 1])
    test_release.make_framework(out, Path(ROOT))
    libraries = [words[at + 1] for at, word in enumerate(words) if word == "-library"]
    for identifier, library in zip(test_release.release.SLICES, libraries):
        shutil.copy(library, out / identifier / "libopenelm_ffi.a")
        assert (Path(words[words.index("-headers") + 1]) / "COpenELMFFI/module.modulemap").is_file()
""",
    "xcrun": """
if "--find" in words: print("/Xcode/usr/bin/clang")
elif "-print-resource-dir" in words: print("/Xcode/usr/lib/clang/17")
elif "--show-sdk-path" in words: print("/Xcode/" + words[1])
elif "--show-sdk-version" in words: print("26.2")
elif "-o" in words:
    import test_release
    platform = {"macosx": "macos", "iphoneos": "ios"}[words[1]]
    flag, _, minimum = next(word for word in words if "version-min" in word).partition("=")
    assert flag == {"macos": "-mmacosx-version-min", "ios": "-mios-version-min"}[platform], words
    data = test_release.kernels(platform, tuple(map(int, minimum.split("."))))
    open(words[words.index("-o") + 1], "wb").write(data)
""",
    "cmake": """
import json
from pathlib import Path
if words[0] == "-S":
    build = Path(words[3])
    build.mkdir(parents=True, exist_ok=True)
    (build / "defines.json").write_text(json.dumps(dict(word[2:].split("=", 1) for word in words[4:])))
    version = build / "_deps/mlx-src/mlx/version.h"
    if not version.exists():
        import test_nax
        test_nax.make_sources(build / "_deps/mlx-src")
    (build / "_deps/mlx-src/LICENSE").write_text("MIT")
    version.write_text("#define MLX_VERSION_MAJOR 0\\n#define MLX_VERSION_MINOR 32\\n#define MLX_VERSION_PATCH 2\\n")
else:
    defines = json.loads((Path(words[1]) / "defines.json").read_text())
    if defines["MLX_BUILD_METAL"] == "ON":
        import subprocess
        # As in MLX's CMake, for every platform.
        minimum = "-mmacosx-version-min=" + defines["CMAKE_OSX_DEPLOYMENT_TARGET"]
        subprocess.run(["xcrun", "-sdk", "macosx", "metal", minimum, "a.air", "-o", defines["MLX_METAL_PATH"] + "/mlx.metallib"], check=True)
""",
    "rustc": 'print(ROOT if "target-libdir" in words else "rustc 1.95.0")',
    "cargo": """
import os
from pathlib import Path
if words[0] == "metadata":
    import json
    kind = {"version": "0", "source": None, "targets": [{"kind": ["lib"]}]}
    packages = [{"name": name, "id": name, "manifest_path": f"{ROOT}/{name}/Cargo.toml", **kind} for name in ("mlx-sys", "openelm-ffi")]
    print(json.dumps({"packages": packages, "resolve": {"nodes": [{"id": "openelm-ffi", "deps": []}, {"id": "mlx-sys", "deps": []}]}}))
if words[0] == "build":
    import shutil
    debug = Path(os.environ["CARGO_TARGET_DIR"]) / "debug"
    debug.mkdir(parents=True)
    for name in ("mlx-c-bindings", "uniffi-bindgen"):
        shutil.copy(f"{ROOT}/bin/{name}", debug)
if words[0] == "rustc":
    import test_release
    assert os.getcwd() == "/" and os.environ["CARGO_PROFILE_RELEASE_STRIP"] == "none"
    target = words[words.index("--target") + 1]
    out = Path(os.environ["CARGO_TARGET_DIR"]) / target / "release/libopenelm_ffi.a"
    out.parent.mkdir(parents=True)
    platform = {"aarch64-apple-darwin": "macos", "aarch64-apple-ios": "ios", "aarch64-apple-ios-sim": "ios-simulator"}[target]
    variable = "MACOSX_DEPLOYMENT_TARGET" if platform == "macos" else "IPHONEOS_DEPLOYMENT_TARGET"
    out.write_bytes(test_release.library(test_release.mach_object(platform, tuple(map(int, os.environ[variable].split("."))))))
    Path(words[-1].split("=")[1]).write_text("-framework CoreFoundation -liconv -lSystem -lc -lm")
""",
    "mlx-c-bindings": 'open(words[1], "w").write("// declarations")',
    "uniffi-bindgen": """
import shutil
source = "OpenELMBindings/OpenELMBindings.swift" if words[-1] == "--swift-sources" else "COpenELMFFI/COpenELMFFI.h"
shutil.copy(f"{ROOT}/swift/Sources/{source}", words[3])
""",
}


def run(*words, cwd=ROOT, **environment):
    environment = {**{key: value for key, value in os.environ.items() if key != "KERNELS"}, **environment}
    return subprocess.run(list(map(str, words)), cwd=cwd, env=environment, capture_output=True, text=True)


class Script(unittest.TestCase):
    def stops(self, words, *options, **environment):
        result = run("apple/xcframework.sh", *options, **environment)
        self.assertEqual((result.returncode, result.stdout), (1, ""))
        self.assertEqual(result.stderr.count("\n"), 1, result.stderr)
        self.assertTrue(result.stderr.startswith("xcframework: "), result.stderr)
        self.assertIn(words, result.stderr)

    @unittest.skipIf(os.uname().sysname == "Darwin", "this may be a Mac with Xcode")
    def test_missing_xcode_is_a_one_line_error(self):
        self.stops("this needs Xcode on a Mac with Apple silicon, not Linux on ")

    def test_invalid_arguments_are_one_line_errors(self):
        self.stops("unexpected --dryrun; usage:", "--dryrun")
        self.stops("KERNELS: expected jit or all, found none", "--dry-run", KERNELS="none")

    def test_dry_run_prints_every_slice_and_writes_nothing(self):
        before = (ROOT / "out/xcframework").exists(), (ROOT / ".mlx/xcframework").exists()
        result = run("apple/xcframework.sh", "--dry-run")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(before, ((ROOT / "out/xcframework").exists(), (ROOT / ".mlx/xcframework").exists()))
        lines = result.stdout.splitlines()
        builds = [line for line in lines if " cargo rustc " in line]
        self.assertEqual([line.split("--target ")[1].split()[0] for line in builds], ["aarch64-apple-darwin", "aarch64-apple-ios", "aarch64-apple-ios-sim"])
        self.assertEqual(["--no-default-features" in line for line in builds], [False, False, True])
        for line in builds:
            for words in ("--crate-type staticlib", "--release --locked", "MACOSX_DEPLOYMENT_TARGET=14.0 IPHONEOS_DEPLOYMENT_TARGET=17.0"):
                self.assertIn(words, line)
        mlx = [line for line in lines if line.startswith("cmake -S")]
        for line, words in zip(mlx, ("macosx 14.0 ON", "macosx 14.0 ON", "iphoneos 17.0 ON", "iphonesimulator 17.0 OFF")):
            sdk, minimum, metal = words.split()
            for define in (f"CMAKE_OSX_SYSROOT={sdk}", f"CMAKE_OSX_DEPLOYMENT_TARGET={minimum}", f"MLX_BUILD_METAL={metal}", "MLX_METAL_JIT=ON", "OPENELM_NAX=ON", "-ffile-prefix-map="):
                self.assertIn(define, line)
        # MLX is configured for macOS again, after its rules are edited.
        self.assertEqual(len(mlx), 4)
        at = next(at for at, line in enumerate(lines) if "/apple/nax.py " in line)
        self.assertEqual((lines[at - 1], lines[at + 1]), (mlx[0], mlx[1]))
        everything = run("apple/xcframework.sh", "--dry-run", KERNELS="all")
        self.assertIn("MLX_METAL_JIT=OFF", everything.stdout)
        self.assertNotIn("OPENELM_NAX=ON", everything.stdout)
        self.assertIn("kernels for the matrix units of M5 and A19 are omitted: they need KERNELS=jit", everything.stderr)


class WholeRun(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve() / "copy"
        for name in ("apple", "release", "swift/Sources/COpenELMFFI", "swift/Sources/OpenELMBindings"):
            shutil.copytree(ROOT / name, self.root / name, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("Package.swift", "Cargo.toml", "uniffi.toml"):
            shutil.copy(ROOT / name, self.root)
        mlx_c = self.root / "mlx-sys/src/mlx-c/CMakeLists.txt"
        mlx_c.parent.mkdir(parents=True)
        mlx_c.write_text("    GIT_TAG v0.32.2)\n")
        mlx_c.with_name("LICENSE").write_text("MIT")
        self.resources = self.root / "swift/Sources/OpenELM/Resources/Kernels"
        self.resources.mkdir(parents=True)
        (self.resources / "mlx-0.31.1-ios.metallib").write_text("from the previous release")
        (self.root / "bin").mkdir()
        for name, code in FAKES.items():
            self.fake(name, code)

    def fake(self, name, code):
        path = self.root / "bin" / name
        path.write_text(
            f"#!{sys.executable} -S\nimport sys\nwords, ROOT = sys.argv[1:], {str(self.root)!r}\n"
            f"sys.dont_write_bytecode = True\nsys.path.insert(0, {str(ROOT / 'release')!r})\nsys.path.insert(0, {str(ROOT / 'apple')!r})\n"
            f"{code}\n")
        path.chmod(0o755)

    def build(self, **environment):
        return run(self.root / "apple/xcframework.sh", cwd=self.root, PATH=f"{self.root}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}", **environment)

    def stops(self, words):
        result = self.build()
        self.assertEqual(result.returncode, 1)
        self.assertTrue(result.stderr.splitlines()[-1].startswith("xcframework: "), result.stderr)
        self.assertIn(words, result.stderr)

    def test_release_is_built_and_kernels_are_copied(self):
        result = self.build(SDKROOT="/elsewhere", IPHONEOS_DEPLOYMENT_TARGET="12.0")
        self.assertEqual(result.returncode, 0, result.stderr)
        found = json.loads((self.root / "out/xcframework/release.json").read_text())
        self.assertEqual([one["platform"] for one in found["slices"]], ["macos", "ios", "ios-simulator"])
        self.assertEqual([one["platform"] for one in found["kernels"]], ["macos", "ios"])
        self.assertEqual(sorted(path.name for path in self.resources.iterdir()), ["mlx-0.32.2-ios.metallib", "mlx-0.32.2-macos.metallib"])
        self.assertEqual(sorted(path.name for path in (self.root / "out/xcframework/licences").iterdir()), ["crates.txt", "mlx-c.txt", "mlx.txt"])
        config = (self.root / ".mlx/xcframework/ios/cargo.toml").read_text()
        self.assertIn('rustc-link-lib = ["static=mlxc", "static=mlx"]', config)
        self.assertIn(f'"--remap-path-prefix={self.root}=/openelm"', config)
        # A second run over existing files.
        for folder in ("target", "macos/mlx", "ios/mlx", "ios-simulator/mlx"):
            shutil.rmtree(self.root / ".mlx/xcframework" / folder)
        self.assertEqual(self.build().returncode, 0)

    def defines(self, name):
        return json.loads((self.root / f".mlx/xcframework/{name}/mlx/defines.json").read_text())

    def test_kernels_for_matrix_units_keep_the_minimum_system(self):
        for version, selected in (("26.2", "ON"), ("27.0", "ON"), ("26.1", "OFF"), ("26", "OFF")):
            self.fake("xcrun", FAKES["xcrun"].replace("26.2", version))
            result = self.build()
            self.assertEqual(result.returncode, 0, result.stderr)
            for name, minimum in (("macos", "14.0"), ("ios", "17.0")):
                found = self.defines(name)
                self.assertEqual((found["OPENELM_NAX"], found["CMAKE_OSX_DEPLOYMENT_TARGET"]), (selected, minimum))
            said = f"omitted: they need SDK 26.2 or newer, this Xcode has {version}\n"
            self.assertEqual(said in result.stderr, selected == "OFF", result.stderr)
            self.assertIn("if(OPENELM_NAX)", (self.root / ".mlx/xcframework/macos/mlx/_deps/mlx-src/mlx/backend/metal/CMakeLists.txt").read_text())
            shutil.rmtree(self.root / ".mlx/xcframework/target")

    def test_other_rules_of_mlx_are_reported(self):
        self.fake("cmake", FAKES["cmake"] + '\nif words[0] == "-S": (build / "_deps/mlx-src/mlx/backend/metal/CMakeLists.txt").write_text("if(NEW)")')
        result = self.build()
        self.assertEqual(result.returncode, 1)
        self.assertIn("expected one condition for the NAX kernels, found 0", result.stderr)
        self.assertIn("editing MLX's rules for kernels failed; the whole log is", result.stderr)

    def test_missing_parts_of_xcode_are_reported(self):
        self.fake("xcodebuild", "sys.exit(1)")
        self.stops("Xcode is missing or not selected")
        self.fake("xcodebuild", FAKES["xcodebuild"])
        self.fake("xcrun", 'sys.exit("iphonesimulator" in words)')
        self.stops("Xcode has no SDK iphonesimulator")
        self.fake("xcrun", 'sys.exit("metal" in words)')
        self.stops("xcodebuild -downloadComponent MetalToolchain")
        self.fake("xcrun", FAKES["xcrun"])
        self.fake("rustc", 'print("/nowhere")')
        self.stops("rustup target add aarch64-apple-darwin")

    def test_failed_steps_are_reported(self):
        self.fake("cmake", FAKES["cmake"] + '\nif words[0] == "-S" and "iphonesimulator" in str(words): sys.exit("no such SDK")')
        result = self.build()
        self.assertEqual(result.returncode, 1)
        self.assertIn("no such SDK", result.stderr)
        self.assertIn("configuring MLX for ios-simulator failed; the whole log is", result.stderr)

    def test_other_mlx_or_declarations_fail(self):
        (self.root / "mlx-sys/src/mlx-c/CMakeLists.txt").write_text("GIT_TAG v0.33.0)\n")
        self.stops("the sources of MLX are version 0.32.2, mlx-c requires 0.33.0")
        shutil.rmtree(self.root / ".mlx")
        (self.root / "mlx-sys/src/mlx-c/CMakeLists.txt").write_text("GIT_TAG v0.32.2)\n")
        self.fake("uniffi-bindgen", 'open(words[3] + "/OpenELMBindings.swift", "w").write("old")')
        # The build copies this file from bin.
        self.stops("comparing swift/Sources/OpenELMBindings/OpenELMBindings.swift with the library for macos")


class StandIn(unittest.TestCase):
    def forwarded(self, *words):
        result = run(ROOT / "apple/metal-xcrun.sh", *words, XCRUN="/bin/echo", KERNEL_SDK="iphoneos", KERNEL_MINIMUM="-mios-version-min=17.0")
        self.assertEqual((result.returncode, result.stderr), (0, ""))
        return result.stdout.rstrip("\n")

    def test_kernels_are_compiled_for_the_other_platform(self):
        self.assertEqual(self.forwarded("-sdk", "macosx", "metal", "-mmacosx-version-min=17.0", "-c", "a b.metal"),
                         "-sdk iphoneos metal -mios-version-min=17.0 -c a b.metal")
        self.assertEqual(self.forwarded("-sdk", "macosx", "metal", "-mmacosx-version-min=17.0", "a.air", "-o", "macosx"),
                         "-sdk iphoneos metal -mios-version-min=17.0 a.air -o macosx")

    def test_other_calls_are_unchanged(self):
        for words in (("--find", "clang"), ("-sdk", "iphonesimulator", "clang"), ("-sdk", "macosx", "metal", "-x", "metal", "-E", "a.h")):
            self.assertEqual(self.forwarded(*words), " ".join(words))

    def test_exit_code_is_the_one_of_xcrun(self):
        self.assertEqual(run(ROOT / "apple/metal-xcrun.sh", XCRUN="/bin/false", KERNEL_SDK="a", KERNEL_MINIMUM="b").returncode, 1)
        self.assertNotEqual(run(ROOT / "apple/metal-xcrun.sh", "metal").returncode, 0)


if __name__ == "__main__":
    unittest.main()
