"""Tests of apple/dist-macos.sh in a copy, with a stand-in for apple/link-macos.sh."""

import os
import shutil
import subprocess
import tarfile
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = """#!/usr/bin/env bash
set -e
cd .mlx/apple/link
mkdir -p macos14/{bin,lib} macos26/{bin,lib} mlx/include/metal_cpp zig
for system in 14 26; do
  for file in bin/openelm lib/libopenelm_ffi.dylib; do echo linked >macos$system/$file; done
  for file in libmlx.dylib mlx.metallib; do echo "for macOS $system" >macos$system/lib/$file; done
done
echo "for macOS 26" >macos26/lib/libjaccl.dylib
touch mlx/LICENSE mlx/include/metal_cpp/LICENSE.txt zig/LICENSE
"""


@unittest.skipIf(os.uname().sysname == "Darwin", "the script runs on Debian and needs GNU's tar")
class Archives(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name)
        for name in ("apple", "release", "examples/tales", ".mlx/apple/link", "swift/Sources/COpenELMFFI"):
            (self.root / name).mkdir(parents=True)
        for name in ("apple/dist-macos.sh", "Cargo.toml", "LICENSE-MIT", "LICENSE-APACHE",
                     "swift/Sources/COpenELMFFI/COpenELMFFI.h", "swift/Sources/COpenELMFFI/module.modulemap"):
            shutil.copy(ROOT / name, self.root / name)
        (self.root / "examples/tales/config.json").write_text("{}")
        (self.root / "release/licences.py").write_text("print('MIT')")
        for name, code in (("apple/link-macos.sh", LINK), (".mlx/apple/cargo", "#!/bin/sh\necho '{}'\n")):
            (self.root / name).write_text(code)
            (self.root / name).chmod(0o755)

    def build(self):
        return subprocess.run([self.root / "apple/dist-macos.sh"], capture_output=True, text=True)

    def read(self, system):
        """The files of an archive by their path below its only folder."""
        name = f"openelm-0.1.0-macos{system}-arm64"
        with tarfile.open(self.root / f"out/{name}.tar.gz") as archive:
            files = {one.name: archive.extractfile(one).read().decode() for one in archive if one.isfile()}
        self.assertTrue(all(path.startswith(name + "/") for path in files))
        return {path[len(name) + 1 :]: text for path, text in files.items()}

    def test_an_archive_per_minimum_system(self):
        result = self.build()
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertEqual(sorted(path.name for path in (self.root / "out").iterdir()),
                         ["openelm-0.1.0-macos14-arm64.tar.gz", "openelm-0.1.0-macos26-arm64.tar.gz"])
        old, new = self.read(14), self.read(26)
        self.assertEqual(set(new) - set(old), {"lib/libjaccl.dylib"})
        self.assertEqual(set(old) - set(new), set())
        for path in ("bin/openelm", "lib/libopenelm_ffi.dylib", "include/COpenELMFFI.h", "licences/crates.txt", "licences/MLX", "tales/config.json"):
            self.assertEqual(old[path], new[path])
        for system, files in ((14, old), (26, new)):
            self.assertEqual(files["lib/libmlx.dylib"], f"for macOS {system}\n")
            self.assertEqual(files["lib/mlx.metallib"], f"for macOS {system}\n")
        self.assertTrue(old["README.txt"].startswith("openelm 0.1.0 for macOS 14 or newer on Apple silicon\n"))
        self.assertIn("openelm-0.1.0-macos26-arm64", old["README.txt"])
        self.assertTrue(new["README.txt"].startswith("openelm 0.1.0 for macOS 26.2 or newer on Apple silicon\n"))
        self.assertIn("openelm-0.1.0-macos14-arm64", new["README.txt"])
        self.assertFalse((self.root / ".mlx/apple/link/stage").exists())

    def test_equal_files_give_equal_archives(self):
        self.build()
        first = {path.name: path.read_bytes() for path in (self.root / "out").iterdir()}
        for path in (self.root / "examples").rglob("*"):
            os.utime(path, (1, 1))
        self.build()
        self.assertEqual({path.name: path.read_bytes() for path in (self.root / "out").iterdir()}, first)

    def test_a_failed_link_packs_nothing(self):
        (self.root / "apple/link-macos.sh").write_text("#!/bin/sh\nexit 1\n")
        self.assertEqual(self.build().returncode, 1)
        self.assertFalse((self.root / "out").exists())


if __name__ == "__main__":
    unittest.main()
