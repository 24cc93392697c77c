#!/usr/bin/env bash
# Packs the files of apple/link-macos.sh for arm64, with Apple's libmlx.dylib and mlx.metallib, the
# licences and the bundled tales model, once per minimum system of MLX's files:
#
#   out/openelm-VERSION-macos14-arm64.tar.gz     macOS 14 or newer
#   out/openelm-VERSION-macos26-arm64.tar.gz     macOS 26.2 or newer, uses the matrix units of M5
#
# Equal files give an equal archive.
set -euo pipefail
cd "$(dirname "$0")/.."
link=$PWD/.mlx/apple/link
say() { printf 'dist-macos: %s\n' "$*" >&2; }

apple/link-macos.sh
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
stage=$link/stage
rm -rf "$stage"
mkdir -p "$stage" out
"$PWD/.mlx/apple/cargo" metadata --format-version 1 --locked --filter-platform aarch64-apple-darwin 2>/dev/null |
  python3 -B release/licences.py openelm-cli openelm-ffi >"$stage/crates.txt"

# Packs the folder `$1` for the minimum system `$2`. The README has the remark `$3`.
pack() {
  local folder=$1 minimum=$2 remark=$3 name
  name=openelm-$version-macos${minimum%.*}-arm64
  mkdir -p "$stage/$name/licences" "$stage/$name/include"
  cp -r "$folder/bin" "$folder/lib" "$stage/$name/"
  cp -r examples/tales "$stage/$name/tales"
  cp swift/Sources/COpenELMFFI/COpenELMFFI.h swift/Sources/COpenELMFFI/module.modulemap "$stage/$name/include/"
  cp LICENSE-MIT LICENSE-APACHE "$stage/crates.txt" "$stage/$name/licences/"
  cp "$link/mlx/LICENSE" "$stage/$name/licences/MLX"
  cp "$link/mlx/include/metal_cpp/LICENSE.txt" "$stage/$name/licences/metal-cpp"
  # compiler-rt, from zig, is linked in.
  cp "$link/zig/LICENSE" "$stage/$name/licences/zig"
  cat >"$stage/$name/README.txt" <<TEXT
openelm $version for macOS ${minimum%.0} or newer on Apple silicon
$remark

Unpack anywhere and keep the folders together: bin/openelm looks for ../lib, and libmlx.dylib for
mlx.metallib beside itself. In this folder:

  xattr -dr com.apple.quarantine .      (once, after a download by a browser: nothing here is notarised)
  bin/openelm generate --model tales --prompt 'Once upon a time there was a king.' --temp 0.7
  bin/openelm --help

lib/libopenelm_ffi.dylib is the library under the Swift package: build that with
OPENELM_LIBRARY_DIR=/path/to/lib swift build. include/ has its C header.

These files were linked on Linux against MLX 0.32.2 of Apple's Python wheel, signed ad hoc by the
linker, and checked by a reader of Mach-O files. They were not run on a Mac before they were packed.
Licences: licences/. Apple's OpenELM weights are not here and carry Apple's own licence.
TEXT
  chmod -R u=rwX,go=rX "$stage/$name"
  tar --directory "$stage" --sort=name --mtime=@0 --owner=0 --group=0 --numeric-owner --create "$name" |
    gzip -9 --no-name >"out/.$name.partial"
  mv "out/.$name.partial" "out/$name.tar.gz"
  rm -rf "${stage:?}/$name"
  say "out/$name.tar.gz ($(du -m "out/$name.tar.gz" | cut -f 1) MB, $(sha256sum "out/$name.tar.gz" | cut -d ' ' -f 1))"
}
pack "$link/macos14" 14.0 \
  "(For an M5 with macOS 26.2 or newer, openelm-$version-macos26-arm64 uses the chip's matrix units.)"
pack "$link/macos26" 26.2 \
  "(It uses the matrix units of an M5. Older systems need openelm-$version-macos14-arm64.)"
rm -rf "$stage"
