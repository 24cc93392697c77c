"""Tests of apple/xcframework.sh and apple/metal-xcrun.sh on any system: what they say without Xcode, the commands
they would run, and a whole run in a copy of this folder where programs of a few lines stand in for Xcode,
CMake and Cargo, and make files for the system that they are asked for.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Each is Python; `words` are its arguments, `ROOT` the copy's path. A run starts a hundred of them, so each
# imports only what it uses.
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
    build.mkdir(parents=True)
    (build / "defines.json").write_text(json.dumps(dict(word[2:].split("=", 1) for word in words[4:])))
    version = build / "_deps/mlx-src/mlx/version.h"
    version.parent.mkdir(parents=True)
    (build / "_deps/mlx-src/LICENSE").write_text("MIT")
    version.write_text("#define MLX_VERSION_MAJOR 0\\n#define MLX_VERSION_MINOR 32\\n#define MLX_VERSION_PATCH 2\\n")
else:
    defines = json.loads((Path(words[1]) / "defines.json").read_text())
    if defines["MLX_BUILD_METAL"] == "ON":
        import subprocess
        # As MLX' CMake does, for every system.
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
        said = run("apple/xcframework.sh", *options, **environment)
        self.assertEqual((said.returncode, said.stdout), (1, ""))
        self.assertEqual(said.stderr.count("\n"), 1, said.stderr)
        self.assertTrue(said.stderr.startswith("xcframework: "), said.stderr)
        self.assertIn(words, said.stderr)

    @unittest.skipIf(os.uname().sysname == "Darwin", "this may be a Mac with Xcode")
    def test_without_xcode_it_stops_with_a_line(self):
        self.stops("this needs Xcode on a Mac with Apple silicon, and this is Linux on ")

    def test_bad_words_stop_it_with_a_line(self):
        self.stops("unexpected --dryrun; usage:", "--dryrun")
        self.stops("KERNELS: expected jit or all, found none", "--dry-run", KERNELS="none")

    def test_the_plan_names_every_slice_and_makes_nothing(self):
        before = (ROOT / "out/xcframework").exists(), (ROOT / ".mlx/xcframework").exists()
        said = run("apple/xcframework.sh", "--dry-run")
        self.assertEqual(said.returncode, 0, said.stderr)
        self.assertEqual(before, ((ROOT / "out/xcframework").exists(), (ROOT / ".mlx/xcframework").exists()))
        lines = said.stdout.splitlines()
        builds = [line for line in lines if " cargo rustc " in line]
        self.assertEqual([line.split("--target ")[1].split()[0] for line in builds], ["aarch64-apple-darwin", "aarch64-apple-ios", "aarch64-apple-ios-sim"])
        self.assertEqual(["--no-default-features" in line for line in builds], [False, False, True])
        for line in builds:
            for words in ("--crate-type staticlib", "--release --locked", "MACOSX_DEPLOYMENT_TARGET=14.0 IPHONEOS_DEPLOYMENT_TARGET=17.0"):
                self.assertIn(words, line)
        mlx = [line for line in lines if line.startswith("cmake -S")]
        for line, words in zip(mlx, ("macosx 14.0 ON", "iphoneos 17.0 ON", "iphonesimulator 17.0 OFF")):
            sdk, minimum, metal = words.split()
            for define in (f"CMAKE_OSX_SYSROOT={sdk}", f"CMAKE_OSX_DEPLOYMENT_TARGET={minimum}", f"MLX_BUILD_METAL={metal}", "MLX_METAL_JIT=ON", "-ffile-prefix-map="):
                self.assertIn(define, line)
        self.assertEqual(len(mlx), 3)
        self.assertIn("MLX_METAL_JIT=OFF", run("apple/xcframework.sh", "--dry-run", KERNELS="all").stdout)


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
        (self.resources / "mlx-0.31.1-ios.metallib").write_text("of the last release")
        (self.root / "bin").mkdir()
        for name, code in FAKES.items():
            self.fake(name, code)

    def fake(self, name, code):
        path = self.root / "bin" / name
        path.write_text(
            f"#!{sys.executable} -S\nimport sys\nwords, ROOT = sys.argv[1:], {str(self.root)!r}\n"
            f"sys.dont_write_bytecode = True\nsys.path.insert(0, {str(ROOT / 'release')!r})\n"
            f"{code}\n")
        path.chmod(0o755)

    def build(self, **environment):
        return run(self.root / "apple/xcframework.sh", cwd=self.root, PATH=f"{self.root}/bin:{Path(sys.executable).parent}:{os.environ['PATH']}", **environment)

    def stops(self, words):
        said = self.build()
        self.assertEqual(said.returncode, 1)
        self.assertTrue(said.stderr.splitlines()[-1].startswith("xcframework: "), said.stderr)
        self.assertIn(words, said.stderr)

    def test_it_makes_a_release_and_gives_the_package_its_kernels(self):
        said = self.build(SDKROOT="/elsewhere", IPHONEOS_DEPLOYMENT_TARGET="12.0")
        self.assertEqual(said.returncode, 0, said.stderr)
        found = json.loads((self.root / "out/xcframework/release.json").read_text())
        self.assertEqual([one["platform"] for one in found["slices"]], ["macos", "ios", "ios-simulator"])
        self.assertEqual([one["platform"] for one in found["kernels"]], ["macos", "ios"])
        self.assertEqual(sorted(path.name for path in self.resources.iterdir()), ["mlx-0.32.2-ios.metallib", "mlx-0.32.2-macos.metallib"])
        self.assertEqual(sorted(path.name for path in (self.root / "out/xcframework/licences").iterdir()), ["crates.txt", "mlx-c.txt", "mlx.txt"])
        config = (self.root / ".mlx/xcframework/ios/cargo.toml").read_text()
        self.assertIn('rustc-link-lib = ["static=mlxc", "static=mlx"]', config)
        self.assertIn(f'"--remap-path-prefix={self.root}=/openelm"', config)
        # Once more, over what is there.
        for folder in ("target", "macos/mlx", "ios/mlx", "ios-simulator/mlx"):
            shutil.rmtree(self.root / ".mlx/xcframework" / folder)
        self.assertEqual(self.build().returncode, 0)

    def test_what_xcode_lacks_is_named(self):
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

    def test_a_step_that_fails_is_named(self):
        self.fake("cmake", FAKES["cmake"] + '\nif words[0] == "-S" and "iphonesimulator" in str(words): sys.exit("no such SDK")')
        said = self.build()
        self.assertEqual(said.returncode, 1)
        self.assertIn("no such SDK", said.stderr)
        self.assertIn("configuring MLX for ios-simulator failed; the whole log is", said.stderr)

    def test_another_mlx_or_other_declarations_stop_it(self):
        (self.root / "mlx-sys/src/mlx-c/CMakeLists.txt").write_text("GIT_TAG v0.33.0)\n")
        self.stops("the sources of MLX say 0.32.2, mlx-c asks for 0.33.0")
        shutil.rmtree(self.root / ".mlx")
        (self.root / "mlx-sys/src/mlx-c/CMakeLists.txt").write_text("GIT_TAG v0.32.2)\n")
        self.fake("uniffi-bindgen", 'open(words[3] + "/OpenELMBindings.swift", "w").write("old")')
        # The copy that the build makes is taken from bin.
        self.stops("comparing swift/Sources/OpenELMBindings/OpenELMBindings.swift with the library for macos")


class StandIn(unittest.TestCase):
    def asks(self, *words):
        said = run(ROOT / "apple/metal-xcrun.sh", *words, XCRUN="/bin/echo", KERNEL_SDK="iphoneos", KERNEL_MINIMUM="-mios-version-min=17.0")
        self.assertEqual((said.returncode, said.stderr), (0, ""))
        return said.stdout.rstrip("\n")

    def test_kernels_go_for_the_other_system(self):
        self.assertEqual(self.asks("-sdk", "macosx", "metal", "-mmacosx-version-min=17.0", "-c", "a b.metal"),
                         "-sdk iphoneos metal -mios-version-min=17.0 -c a b.metal")
        self.assertEqual(self.asks("-sdk", "macosx", "metal", "-mmacosx-version-min=17.0", "a.air", "-o", "macosx"),
                         "-sdk iphoneos metal -mios-version-min=17.0 a.air -o macosx")

    def test_the_rest_goes_on_as_it_is(self):
        for words in (("--find", "clang"), ("-sdk", "iphonesimulator", "clang"), ("-sdk", "macosx", "metal", "-x", "metal", "-E", "a.h")):
            self.assertEqual(self.asks(*words), " ".join(words))

    def test_it_ends_as_xcrun_ends(self):
        self.assertEqual(run(ROOT / "apple/metal-xcrun.sh", XCRUN="/bin/false", KERNEL_SDK="a", KERNEL_MINIMUM="b").returncode, 1)
        self.assertNotEqual(run(ROOT / "apple/metal-xcrun.sh", "metal").returncode, 0)


if __name__ == "__main__":
    unittest.main()
