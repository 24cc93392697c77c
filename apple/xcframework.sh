#!/usr/bin/env bash
# Builds the Swift package's binaries for Apple systems, on a Mac with Xcode: the library as an
# XCFramework with three slices (macOS, iOS, and the iOS simulator, which has no GPU for MLX), and
# MLX's GPU kernels for macOS and iOS. The results are in `out/xcframework`; the kernels are also
# copied to the package's resources.
#
#   apple/xcframework.sh [--dry-run]     --dry-run prints the commands only, on any system
#   KERNELS=jit (the default)            most kernels are compiled on the device at first use: 1.5 MB per platform
#   KERNELS=all                          all kernels are compiled here: 136 MB per platform, both in every app
#
# MLX is built here, not by mlx-sys's build script, which would compile kernels for macOS whatever
# the target is, link clang's macOS runtime into an iOS library, and keep this machine's paths in
# both. The bash of macOS is version 3.2: it lacks ${words[@]@Q}, and empty arrays are errors.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
work=$root/.mlx/xcframework
out=$root/out/xcframework
log=$work/log
resources=$root/swift/Sources/OpenELM/Resources/Kernels
start=$SECONDS

say() { printf 'xcframework: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing; $2"; }
usage="usage: [KERNELS=jit|all] apple/xcframework.sh [--dry-run]"

dry=
case "$*" in
  '') ;;
  --dry-run) dry=1 ;;
  *) die "unexpected $*; $usage" ;;
esac
case ${KERNELS:=jit} in
  jit) jit=ON kernels_limit=8 ;;
  all) jit=OFF kernels_limit=180 ;;
  *) die "KERNELS: expected jit or all, found $KERNELS; $usage" ;;
esac

# Runs a step, appends its output to the log, and reports the step if it fails. A dry run prints the
# command.
step() {
  local what=$1 words
  shift
  if [ -n "$dry" ]; then
    words=$(printf ' %q' "$@")
    printf '%s\n' "${words# }"
  else
    "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; die "$what failed; the whole log is $log"; }
  fi
}
# Prints the output of an Xcode command. A dry run prints the command.
query() {
  if [ -n "$dry" ]; then printf '<%s>' "$*"; else "$@" 2>>"$log" || die "$* failed; the log is $log"; fi
}
# Whether the version `$1`, such as 26.4, is at least major `$2`, minor `$3`.
at_least() {
  local major minor
  IFS=. read -r major minor _ <<<"$1"
  [ "$major" -gt "$2" ] || { [ "$major" -eq "$2" ] && [ "${minor:-0}" -ge "$3" ]; }
}
# Writes standard input to a file.
write() { if [ -n "$dry" ]; then cat >/dev/null; else cat >"$1"; fi; }

need cargo "install Rust with rustup"
need python3 "install Python 3.9 or newer"
targets="aarch64-apple-darwin aarch64-apple-ios aarch64-apple-ios-sim"
if [ -z "$dry" ]; then
  [ "$(uname -s)-$(uname -m)" = Darwin-arm64 ] ||
    die "this needs Xcode on a Mac with Apple silicon, not $(uname -s) on $(uname -m); --dry-run prints the commands"
  xcodebuild -version >/dev/null 2>&1 ||
    die "Xcode is missing or not selected; install it, then: sudo xcode-select --switch /Applications/Xcode.app"
  for sdk in macosx iphoneos iphonesimulator; do
    xcrun -sdk "$sdk" --show-sdk-path >/dev/null 2>&1 || die "Xcode has no SDK $sdk; xcodebuild -downloadPlatform iOS downloads it"
  done
  xcrun -sdk macosx metal --version >/dev/null 2>&1 ||
    die "Metal's compiler is missing; xcodebuild -downloadComponent MetalToolchain downloads it"
  need cmake "install CMake 3.25 or newer"
  for target in $targets; do
    [ -d "$(rustc --print target-libdir --target "$target")" ] ||
      die "Rust's library for $target is missing; rustup target add $targets"
  done
  mkdir -p "$work"
  : >"$log"
fi
case $root in *[[:space:]]*) die "the path $root contains a space, which compiler flags do not support" ;; esac
# Compilers apply these variables to any target; here each target has its own values.
unset SDKROOT MACOSX_DEPLOYMENT_TARGET IPHONEOS_DEPLOYMENT_TARGET

mlx_sys=$(cargo metadata --format-version 1 --locked 2>/dev/null | python3 -c '
import json, os, sys
package = next(p for p in json.load(sys.stdin)["packages"] if p["name"] == "mlx-sys")
print(os.path.dirname(package["manifest_path"]))') || die "cargo metadata lacks mlx-sys; run cargo fetch --locked"
mlx_c=$mlx_sys/src/mlx-c
version=$(sed -n 's/.*GIT_TAG v\([0-9.]*\).*/\1/p' "$mlx_c/CMakeLists.txt")
[ -n "$version" ] || die "$mlx_c/CMakeLists.txt has no MLX version"
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
cargo_home=${CARGO_HOME:-$HOME/.cargo}
prefix_map="-ffile-prefix-map=$root=/openelm -ffile-prefix-map=$cargo_home=/cargo"
# From `/`, cargo does not read .cargo/config.toml of this folder, which may select a wheel's MLX.
# shellcheck disable=SC2016 # the inner shell expands it
in_root=(sh -c 'cd / && exec "$@"' sh env "CARGO_TARGET_DIR=$work/target")

say "MLX $version, kernels: $KERNELS${dry:+; nothing is run}"
# Kernels for the matrix units of M5 and A19 (MLX: NAX) need the headers of SDK 26.2 here and a system
# of 26.2 on the device. apple/nax.py keeps the minimum system. A dry run assumes such an SDK.
nax=OFF
sdk_version=$(query xcrun -sdk macosx --show-sdk-version)
if [ "$KERNELS" = all ]; then
  say "kernels for the matrix units of M5 and A19 are omitted: they need KERNELS=jit"
elif [ -n "$dry" ] || at_least "$sdk_version" 26 2; then
  nax=ON
else
  say "kernels for the matrix units of M5 and A19 are omitted: they need SDK 26.2 or newer, this Xcode has $sdk_version"
fi

say "1/5 building the generators of declarations"
step "building the generators" "${in_root[@]}" cargo build --locked --manifest-path "$root/Cargo.toml" --package mlx-c-bindings --package uniffi-bindgen
step "making folders" mkdir -p "$work/path" "$work/headers/COpenELMFFI" "$resources"
step "replacing xcrun" ln -sf "$root/apple/metal-xcrun.sh" "$work/path/xcrun"
# Removes MLX's build folder from the library, where it would be the last search path for kernels.
write "$work/no-path.hpp" <<'HPP'
#undef METAL_PATH
#define METAL_PATH ""
HPP
xcrun=$(command -v xcrun || echo /usr/bin/xcrun)
toolchain=$(query xcrun --find clang)
toolchain=${toolchain%/bin/clang}
clang_headers="$(query xcrun clang -print-resource-dir)/include"
# The subfolder has the module's name, because an app merges the headers of all libraries.
step "copying the header" cp "$root/swift/Sources/COpenELMFFI/COpenELMFFI.h" "$root/swift/Sources/COpenELMFFI/module.modulemap" "$work/headers/COpenELMFFI/"

# Builds MLX, mlx-c and their declarations for one slice: libmlx.a, libmlxc.a, bindings.rs, and
# kernels/mlx.metallib.
build_mlx() {
  local name=$1 sdk=$2 clang=$3 minimum=$4 metal=$5 build=$work/$1
  local defines=("-DCMAKE_BUILD_TYPE=Release" "-DCMAKE_OSX_SYSROOT=$sdk" "-DCMAKE_OSX_ARCHITECTURES=arm64"
    "-DCMAKE_OSX_DEPLOYMENT_TARGET=$minimum" "-DCMAKE_ARCHIVE_OUTPUT_DIRECTORY=$build/lib"
    "-DCMAKE_C_FLAGS=$prefix_map" "-DCMAKE_CXX_FLAGS=$prefix_map -include $work/no-path.hpp"
    "-DBUILD_SHARED_LIBS=OFF" "-DMLX_C_BUILD_EXAMPLES=OFF" "-DMLX_BUILD_GGUF=OFF"
    "-DMLX_BUILD_METAL=$metal" "-DMLX_METAL_JIT=$jit" "-DMLX_METAL_PATH=$build/kernels" "-DOPENELM_NAX=$nax")
  local environment=(env)
  # The macOS build comes first and downloads MLX; the other builds use its sources.
  [ "$name" = macos ] ||
    defines+=("-DCMAKE_SYSTEM_NAME=iOS" "-DCMAKE_SYSTEM_PROCESSOR=arm64" "-DFETCHCONTENT_SOURCE_DIR_MLX=$work/macos/mlx/_deps/mlx-src")
  [ "$name" != ios ] ||
    environment+=("PATH=$work/path:$PATH" "XCRUN=$xcrun" "KERNEL_SDK=$sdk" "KERNEL_MINIMUM=-mios-version-min=$minimum")
  step "making folders" mkdir -p "$build/lib" "$build/kernels"
  step "configuring MLX for $name" cmake -S "$mlx_c" -B "$build/mlx" "${defines[@]}"
  if [ "$name" = macos ]; then
    step "editing MLX's rules for kernels" python3 -B "$root/apple/nax.py" "$build/mlx/_deps/mlx-src"
    step "configuring MLX for $name" cmake -S "$mlx_c" -B "$build/mlx" "${defines[@]}"
  fi
  step "building MLX for $name" "${environment[@]}" cmake --build "$build/mlx" --target mlxc --parallel "$jobs"
  step "declaring mlx-c for $name" env "LIBCLANG_PATH=$toolchain/lib" "$work/target/debug/mlx-c-bindings" "$mlx_c" "$build/lib/bindings.rs" \
    "--target=$clang" -isysroot "$(query xcrun -sdk "$sdk" --show-sdk-path)" -isystem "$clang_headers"
}

# Builds the library of one slice, and checks that its declarations equal the package's.
build_library() {
  local name=$1 target=$2 features=$3 build=$work/$1 flags
  flags=CFLAGS_$(printf '%s' "$target" | tr - _)
  write "$build/cargo.toml" <<TOML
[target.$target]
rustflags = ["--remap-path-prefix=$root=/openelm", "--remap-path-prefix=$cargo_home=/cargo"]
[target.$target.mlx]
rustc-link-search = ["native=$build/lib"]
rustc-link-lib = ["static=mlxc", "static=mlx"]
rustc-env = { OUT_DIR = "$build/lib" }
TOML
  # Cargo does not detect changes of libmlx.a.
  step "removing the previous MLX" "${in_root[@]}" cargo clean --release --locked --manifest-path "$root/Cargo.toml" --package mlx-sys --target "$target"
  # Only a staticlib: clang's runtime, which a dynamic library would need, is added by the app's
  # linker. Not stripped, because the declarations are read from its symbols.
  # shellcheck disable=SC2086 # features is none or one word
  step "building the library for $name" "${in_root[@]}" MACOSX_DEPLOYMENT_TARGET=14.0 IPHONEOS_DEPLOYMENT_TARGET=17.0 \
    "$flags=$prefix_map" CARGO_PROFILE_RELEASE_STRIP=none \
    cargo rustc --release --locked --manifest-path "$root/Cargo.toml" --package openelm-ffi --lib --crate-type staticlib \
    --target "$target" $features --config "$build/cargo.toml" -- --print "native-static-libs=$build/links.txt"
  step "copying the library" cp "$work/target/$target/release/libopenelm_ffi.a" "$build/"
  step "making folders" mkdir -p "$build/swift"
  for kind in --swift-sources --headers; do
    step "reading the declarations for $name" "$work/target/debug/uniffi-bindgen" --config "$root/uniffi.toml" "$build/libopenelm_ffi.a" "$build/swift" "$kind"
  done
  for file in OpenELMBindings/OpenELMBindings.swift COpenELMFFI/COpenELMFFI.h; do
    step "comparing swift/Sources/$file with the library for $name (make bindings updates it)" cmp "$build/swift/$(basename "$file")" "$root/swift/Sources/$file"
  done
}

say "2/5 macOS 14"
build_mlx macos macosx arm64-apple-macos14.0 14.0 ON
build_library macos aarch64-apple-darwin ''
if [ -z "$dry" ]; then
  found=$(awk '/^#define MLX_VERSION_(MAJOR|MINOR|PATCH) / { printf "%s%s", dot, $3; dot = "." }' "$work/macos/mlx/_deps/mlx-src/mlx/version.h")
  [ "$found" = "$version" ] || die "the sources of MLX are version $found, mlx-c requires $version"
fi
say "3/5 iOS 17"
build_mlx ios iphoneos arm64-apple-ios17.0 17.0 ON
build_library ios aarch64-apple-ios ''
say "4/5 the iOS 17 simulator, CPU only"
build_mlx ios-simulator iphonesimulator arm64-apple-ios17.0-simulator 17.0 OFF
build_library ios-simulator aarch64-apple-ios-sim --no-default-features

say "5/5 packing"
step "clearing $out" rm -rf "$out"
step "making folders" mkdir -p "$out/kernels" "$out/links" "$out/licences"
libraries=()
for name in macos ios ios-simulator; do
  libraries+=(-library "$work/$name/libopenelm_ffi.a" -headers "$work/headers")
  step "copying the link list of $name" cp "$work/$name/links.txt" "$out/links/$name.txt"
done
step "making the XCFramework" xcodebuild -create-xcframework "${libraries[@]}" -output "$out/COpenELMFFI.xcframework"
for name in macos ios; do
  step "copying the kernels for $name" cp "$work/$name/kernels/mlx.metallib" "$out/kernels/mlx-$version-$name.metallib"
done
# Licences of the linked code: MLX and its dependencies, mlx-c, the crates.
# shellcheck disable=SC2016 # the inner shell expands it
step "collecting the licences" sh -c 'for file in "$1"/*-src/LICENSE*; do cp "$file" "$2/$(basename "$(dirname "$file")" -src).txt" || exit; done
  cp "$3/LICENSE" "$2/mlx-c.txt" && cargo metadata --format-version 1 --locked --filter-platform aarch64-apple-ios | python3 -B release/licences.py openelm-ffi >"$2/crates.txt"' \
  sh "$work/macos/mlx/_deps" "$out/licences" "$mlx_c"
step "checking and packing" python3 -B release/release.py pack "$out" --mlx "$version" --kernels-limit "$kernels_limit"
step "removing the package's old kernels" find "$resources" -name '*.metallib' -delete
step "copying the kernels to the package" cp "$out/kernels/mlx-$version-macos.metallib" "$out/kernels/mlx-$version-ios.metallib" "$resources/"
[ -n "$dry" ] || say "out/xcframework is complete after $((SECONDS - start)) s and is used by swift build and Xcode; release/release.py pin makes a release"
