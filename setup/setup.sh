#!/usr/bin/env bash
# Prepares the prebuilt MLX 0.32.2 for mlx-rs in the ignored folder `.mlx`: downloads the pinned
# wheels, compiles mlx-c (its source is in the mlx-sys crate), writes the Rust declarations, and
# sets their paths in Cargo's configuration. A second run only compares a stamp.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
mlx=$root/.mlx

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing; $2"; }

if [ "${MLX_FROM_SOURCE:-0}" = 1 ]; then
  [ "$(uname -s)" = Darwin ] || die "MLX_FROM_SOURCE=1 needs a Mac: mlx-sys builds MLX for Apple systems only"
  rm -f "$mlx/cargo.toml" "$mlx/stamp"
  say "mlx-sys will build MLX itself (this needs Xcode, its Metal toolchain and CMake)"
  exit 0
fi

case "$(uname -s)-$(uname -m)" in
  Linux-x86_64) platform=linux-x86_64 triple=x86_64-unknown-linux-gnu ;;
  Darwin-arm64) platform=macos-arm64 triple=aarch64-apple-darwin ;;
  *) die "no prebuilt MLX for $(uname -s) on $(uname -m); Linux on x86_64 and macOS on arm64 are supported" ;;
esac

# All inputs of the result, including this folder's path, because paths in the result are absolute.
stamp="$root $(cat setup/setup.sh "setup/wheels-$platform.txt" setup/native/*.hpp setup/native/linux_x86_64/* setup/mlx-c-bindings/src/main.rs | cksum)"
if [ -f "$mlx/stamp" ] && [ "$(cat "$mlx/stamp")" = "$stamp" ] && [ -f "$mlx/cargo.toml" ]; then
  exit 0
fi

need cargo "install Rust with rustup"
need python3 "install Python 3.9 or newer (Debian: apt-get install python3)"
python3 -m pip --version >/dev/null 2>&1 || die "pip is missing; install it (Debian: apt-get install python3-pip)"
cxx=${CXX:-c++}
need "$cxx" "install a C++20 compiler (Debian: apt-get install g++; macOS: xcode-select --install)"

log=$mlx/setup.log
mkdir -p "$mlx"
: >"$log"
# Runs a step, appends its output to the log, and reports the step if it fails.
step() {
  local what=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 5 "$log" >&2; die "$what failed; the whole log is $log"; }
}

say "preparing MLX 0.32.2 in .mlx (about a minute, once)"
rm -rf "$mlx/cargo.toml" "$mlx/stamp" "$mlx/wheels" "$mlx/obj" "$mlx/prefix" "${mlx:?}/lib"
mkdir -p "$mlx/lib" "$mlx/obj"

say "1/4 downloading the wheels of MLX$([ $platform = linux-x86_64 ] && echo ", OpenBLAS") and libclang (42 to 68 MB)"
step "downloading the wheels" python3 -m pip download --quiet --disable-pip-version-check --no-deps \
  --require-hashes --only-binary=:all: --dest "$mlx/wheels" --requirement "setup/wheels-$platform.txt"
for wheel in "$mlx"/wheels/*.whl; do
  step "unpacking $(basename "$wheel")" python3 -m zipfile -e "$wheel" "$mlx/prefix"
done
rm -rf "$mlx/wheels"

say "2/4 fetching the crates"
step "cargo fetch" cargo fetch --locked
mlx_sys=$(cargo metadata --format-version 1 --locked 2>>"$log" | python3 -c '
import json, os, sys
package = next(p for p in json.load(sys.stdin)["packages"] if p["name"] == "mlx-sys")
print(os.path.dirname(package["manifest_path"]))') || die "cargo metadata failed; the whole log is $log"
mlx_c=$mlx_sys/src/mlx-c

say "3/4 compiling mlx-c and the generator of its declarations"
# The generator is in this workspace but does not link MLX; its build stays out of target/.
(CARGO_TARGET_DIR="$mlx/target" cargo build --quiet --locked --package mlx-c-bindings >"$mlx/bindings.log" 2>&1) &
generator=$!
flags=(-std=c++20 -O2 -fPIC -w -include "$root/setup/native/format.hpp" -I"$mlx_c" -I"$mlx/prefix/mlx/include")
# Two translation units of all of mlx-c: its files are short, and each includes all of MLX's
# headers.
unit=0
for source in "$mlx_c"/mlx/c/*.cpp; do
  printf '#include "%s"\n' "$source" >>"$mlx/obj/mlx_c_$unit.cpp"
  unit=$((1 - unit))
done
sources=("$mlx"/obj/mlx_c_?.cpp)
[ $platform = linux-x86_64 ] && sources+=("$root"/setup/native/linux_x86_64/*.cpp)
jobs=$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
# xargs appends the source file as the last argument, so the compiler command is passed in the
# environment. (The bash of macOS is version 3.2 and has no @Q.)
compile() {
  export OBJ=$mlx/obj COMPILE
  COMPILE=$cxx$(printf ' %q' "${flags[@]}")
  # shellcheck disable=SC2016 # the inner shell expands it
  printf '%s\0' "${sources[@]}" |
    xargs -0 -n 1 -P "$jobs" bash -c 'eval "$COMPILE -c \"\$1\" -o \"\$OBJ/\$(basename "\$1" .cpp).o\""' compile
}
step "compiling mlx-c" compile
wait "$generator" || { cat "$mlx/bindings.log" >>"$log"; tail -n 5 "$log" >&2; die "building mlx-c-bindings failed; the whole log is $log"; }

say "4/4 linking, and writing the declarations"
if [ $platform = linux-x86_64 ]; then
  # setup/native has a faster version.
  for object in "$mlx"/obj/mlx_c_?.o; do
    step "weakening a symbol" objcopy --weaken-symbol=mlx_array_new_data_managed_payload "$object"
  done
  # The library's install name is its absolute path: programs find it from any folder without
  # LD_LIBRARY_PATH or linker flags, and it finds MLX and OpenBLAS in its own folder.
  # shellcheck disable=SC2016 # the loader expands it
  step "linking libmlxc.so" "$cxx" -shared -o "$mlx/lib/libmlxc.so" "$mlx"/obj/*.o \
    -Wl,-soname,"$mlx/lib/libmlxc.so" -Wl,--disable-new-dtags,-rpath,'$ORIGIN/../prefix/mlx/lib:$ORIGIN/../prefix/scipy_openblas32/lib' \
    -L"$mlx/prefix/scipy_openblas32/lib" -lscipy_openblas -L"$mlx/prefix/mlx/lib" -lmlx
  search=("native=$mlx/lib") libraries=("dylib=mlxc")
  clang_args=(-isystem "$("$cxx" -print-file-name=include)")
else
  step "archiving libmlxc.a" ar -crs "$mlx/lib/libmlxc.a" "$mlx"/obj/*.o
  # dyld finds libmlx.dylib by its install name; an absolute name needs no flags. The wheel for macOS
  # 26 loads @rpath/libjaccl.dylib, which is beside it, and has no path of its own.
  step "naming libmlx.dylib" install_name_tool -id "$mlx/prefix/mlx/lib/libmlx.dylib" -add_rpath @loader_path "$mlx/prefix/mlx/lib/libmlx.dylib"
  step "signing libmlx.dylib" codesign --force --sign - "$mlx/prefix/mlx/lib/libmlx.dylib"
  search=("native=$mlx/lib" "native=$mlx/prefix/mlx/lib") libraries=("static=mlxc" "dylib=mlx" "dylib=c++" "framework=Foundation")
  clang_args=(-isysroot "$(xcrun --show-sdk-path)" -isystem "$("$cxx" -print-resource-dir)/include")
fi
libclang=$(find "$mlx/prefix" -name 'libclang.so' -o -name 'libclang.dylib')
step "writing the declarations" env LIBCLANG_PATH="$(dirname "$libclang")" \
  "$mlx/target/debug/mlx-c-bindings" "$mlx_c" "$mlx/lib/bindings.rs" "${clang_args[@]}"
rm -rf "$mlx/target" "$mlx/obj" "$mlx/bindings.log" "$mlx"/prefix/libclang*

list() { printf '"%s", ' "$@"; }
cat >"$mlx/cargo.toml" <<EOF
# Written by setup/setup.sh: replaces mlx-sys's build script on this machine.
[target.$triple.mlx]
rustc-link-search = [$(list "${search[@]}")]
rustc-link-lib = [$(list "${libraries[@]}")]
rustc-env = { OUT_DIR = "$mlx/lib" }
EOF
printf '%s' "$stamp" >"$mlx/stamp"
say "done"
