"""Tests of the macOS half of setup/setup.sh on any system, in a copy with stand-ins for Apple's tools,
pip and Cargo."""

import os
import subprocess
import sys
import shutil
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FAKES = {
    "uname": '[ "$1" = -m ] && echo arm64 || echo Darwin',
    "c++": '[ "$1" = -print-resource-dir ] && echo /Xcode/clang || touch "${@: -1}"',
    "ar": 'touch "$2"',
    "xcrun": "echo /Xcode/MacOSX.sdk",
    "install_name_tool": "",
    "codesign": "",
    "cargo": """case $1 in
  metadata) echo "{\\"packages\\": [{\\"name\\": \\"mlx-sys\\", \\"manifest_path\\": \\"$ROOT/mlx-sys/Cargo.toml\\"}]}" ;;
  build)
    mkdir -p "$CARGO_TARGET_DIR/debug"
    printf '#!/bin/sh\\ntouch "$2"\\n' >"$CARGO_TARGET_DIR/debug/mlx-c-bindings"
    chmod +x "$CARGO_TARGET_DIR/debug/mlx-c-bindings" ;;
esac""",
    "python3": """case "$*" in
  *'pip download'*) mkdir -p .mlx/wheels && touch .mlx/wheels/one.whl ;;
  *zipfile*)
    mkdir -p .mlx/prefix/mlx/lib .mlx/prefix/clang
    touch .mlx/prefix/mlx/lib/{libmlx,libjaccl}.dylib .mlx/prefix/clang/libclang.dylib ;;
  *pip*) ;;
  *) exec "$PYTHON" "$@" ;;
esac""",
}


class MacOS(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve()
        shutil.copytree(ROOT / "setup", self.root / "setup", ignore=shutil.ignore_patterns("__pycache__", "target"))
        (self.root / "bin").mkdir()
        source = self.root / "mlx-sys/src/mlx-c/mlx/c/array.cpp"
        source.parent.mkdir(parents=True)
        source.touch()
        for name, code in FAKES.items():
            path = self.root / "bin" / name
            path.write_text(f'#!/usr/bin/env bash\necho "{name} $*" >>"$CALLS"\n{code}\n')
            path.chmod(0o755)

    def test_libraries_of_the_wheel_are_found_from_any_folder(self):
        calls = self.root / "calls"
        environment = {**os.environ, "CALLS": str(calls), "ROOT": str(self.root), "PYTHON": sys.executable, "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        for name in ("CXX", "MLX_FROM_SOURCE"):
            environment.pop(name, None)
        result = subprocess.run([self.root / "setup/setup.sh"], env=environment, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        library = self.root / ".mlx/prefix/mlx/lib/libmlx.dylib"
        said = calls.read_text().splitlines()
        # The wheel for macOS 26 loads libjaccl.dylib, beside it; editing a library ends its signature.
        named = said.index(f"install_name_tool -id {library} -add_rpath @loader_path {library}")
        self.assertEqual(said[named + 1], f"codesign --force --sign - {library}")
        config = (self.root / ".mlx/cargo.toml").read_text()
        self.assertIn("[target.aarch64-apple-darwin.mlx]", config)
        self.assertIn(f'"native={library.parent}"', config)


if __name__ == "__main__":
    unittest.main()
