#!/usr/bin/env bash
# Links the `openelm` tool and the FFI library (release builds) for macOS 14 on arm64, on Debian
# Linux (x86_64), with Apple's libmlx.dylib from the wheel `mlx-metal`, and checks the files with
# apple/macho.py. Nothing is run. The result is in `.mlx/apple/link/macos14`, and with MLX's files
# for macOS 26.2, which use the matrix units of M5, in `.mlx/apple/link/macos26`.
#
# zig (also a wheel) is the C compiler and linker, and provides stubs of libSystem. Its static
# libc++ is not used, because its exceptions are incompatible with libmlx.dylib. A stub of the
# system's libc++ replaces it, with the symbols that Apple's files for macOS 14 import.
set -euo pipefail
cd "$(dirname "$0")/.."
apple=$PWD/.mlx/apple
link=$apple/link
log=$link/log
target=aarch64-apple-darwin
minimum=14.0
start=$SECONDS

say() { printf 'link-macos: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
# Runs a step, appends its output to the log, and reports the step if it fails.
step() {
  local what=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 20 "$log" >&2; die "$what failed; the whole log is $log"; }
}

{ [ -x "$apple/cargo" ] && [ -f "$apple/bindings/$target/bindings.rs" ]; } ||
  die "run apple/check-apple.sh first: it fetches the compiler"
command -v python3 >/dev/null || die "python3 is missing; install it (Debian: apt-get install python3 python3-pip)"
mkdir -p "$link"
: >"$log"

step "testing the Mach-O reader" python3 -B apple/test_macho.py

wheels=$(cat apple/wheels-link-macos.txt apple/wheels-link-macos26.txt | cksum)
if [ "$(cat "$link/wheels.stamp" 2>/dev/null)" != "$wheels" ]; then
  say "downloading zig and MLX for macOS 14 and 26 (210 MB, once)"
  rm -rf "$link"/{wheels,wheels26,zig,mlx,mlx26,unpacked,unpacked26}
  # MLX's wheel is for another system, so pip gets the platform; zig's wheel is for this system.
  step "downloading the wheels" python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: --platform macosx_14_0_arm64 --platform manylinux2010_x86_64 --platform manylinux_2_12_x86_64 \
    --dest "$link/wheels" --requirement apple/wheels-link-macos.txt
  step "downloading the wheel for macOS 26" python3 -m pip download --quiet --disable-pip-version-check --no-deps --require-hashes \
    --only-binary=:all: --platform macosx_26_0_arm64 --dest "$link/wheels26" --requirement apple/wheels-link-macos26.txt
  for wheel in "$link"/wheels/*.whl; do
    step "unpacking $(basename "$wheel")" python3 -m zipfile -e "$wheel" "$link/unpacked"
  done
  step "unpacking the wheel for macOS 26" python3 -m zipfile -e "$link"/wheels26/*.whl "$link/unpacked26"
  # mlx-c is compiled once, so both libraries must have the same declarations.
  step "comparing the headers of both wheels" diff -r "$link/unpacked/mlx/include" "$link/unpacked26/mlx/include"
  mv "$link/unpacked26/mlx" "$link/mlx26"
  mv "$link/unpacked/mlx" "$link/mlx"
  mv "$link/unpacked/ziglang" "$link/zig"
  mv "$link"/unpacked/mlx_metal-*.dist-info/licenses/LICENSE "$link/mlx/LICENSE"
  chmod +x "$link/zig/zig"
  rm -rf "$link"/{wheels,wheels26,unpacked,unpacked26}
  printf '%s' "$wheels" >"$link/wheels.stamp"
fi

# Translates rustc's and `cc`'s arguments for Apple's tools to zig's.
export ZIG=$link/zig/zig STUBS=$link/stubs MINIMUM=$minimum
export ZIG_GLOBAL_CACHE_DIR=$link/zig-cache ZIG_LOCAL_CACHE_DIR=$link/zig-cache
mkdir -p "$link/bin" "$link/path" "$STUBS"
cat >"$link/bin/cc" <<'CC'
#!/usr/bin/env bash
words=() linking=1 library=
while [ $# -gt 0 ]; do
  case $1 in
    -arch | -isysroot | -target) shift ;;
    -framework) words+=("$STUBS/$2.tbd") && shift ;;
    -platform_version) shift 3 ;;
    --target=* | -mmacosx-version-min=* | -liconv | -Wl,-dead_strip_dylibs) ;;
    -lc++ | -lobjc) words+=("$STUBS/lib${1#-l}.tbd") ;;
    -c | -E | -S) linking='' words+=("$1") ;;
    -dynamiclib) library=1 words+=("$1") ;;
    *) words+=("$1") ;;
  esac
  shift
done
if [ -n "$library" ]; then
  words+=(-Wl,-install_name,@rpath/libopenelm_ffi.dylib -Wl,-rpath,@loader_path)
elif [ -n "$linking" ]; then
  words+=(-Wl,-rpath,@executable_path/../lib)
fi
exec "$ZIG" cc -target "aarch64-macos.$MINIMUM" "${words[@]}"
CC
# shellcheck disable=SC2016 # the script expands it
printf '#!/bin/sh\nexec "$ZIG" ar "$@"\n' >"$link/bin/ar"
# rustc would run a tool to strip debug information, which is neither present nor needed.
ln -sf /bin/true "$link/path/rust-objcopy"
chmod +x "$link"/bin/{cc,ar}

# In addition to the symbols that Apple's files import: to_chars of macOS 13.3 (libc++'s
# __configuration/availability.h), and long-standing symbols of libc++ and CoreFoundation.
to_chars=()
for number in d e f; do
  to_chars+=("__ZNSt3__18to_charsEPcS0_$number" "__ZNSt3__18to_charsEPcS0_${number}NS_12chars_formatE"
    "__ZNSt3__18to_charsEPcS0_${number}NS_12chars_formatEi")
done
stub() {
  local library=$1 name=$2
  shift 2
  step "writing the stub $name" python3 -B apple/macho.py stub "$library" "$link/mlx/lib/libmlx.dylib" \
    "$link/mlx/lib/libjaccl.dylib" --output "$STUBS/$name.tbd" "$@"
}
stub /usr/lib/libc++.1.dylib libc++ --also "${to_chars[@]}" __ZdlPvm __ZNSt3__16localeaSERKS0_
stub /usr/lib/libobjc.A.dylib libobjc
stub /System/Library/Frameworks/Foundation.framework/Versions/C/Foundation Foundation
stub /System/Library/Frameworks/CoreFoundation.framework/Versions/A/CoreFoundation CoreFoundation --also _CFRelease \
  _CFStringGetBytes _CFStringGetCStringPtr _CFStringGetLength _CFTimeZoneCopySystem _CFTimeZoneGetName _CFTimeZoneResetSystem

mlx_sys=$("$apple/cargo" metadata --format-version 1 --locked 2>>"$log" |
  grep -o '"manifest_path":"[^"]*/mlx-sys-[0-9.]*/Cargo.toml"' | cut -d '"' -f 4) || die "cargo metadata names no mlx-sys; the log is $log"
mlx_c=${mlx_sys%/Cargo.toml}/src/mlx-c
stamp="$wheels $mlx_c $(cat apple/link-macos.sh setup/native/format.hpp | cksum)"
# The folder is named after its inputs, so that Cargo links again when they change.
mlx_c_built=$link/mlx-c-$(printf '%s' "$stamp" | cksum | cut -d ' ' -f 1)
if [ ! -f "$mlx_c_built/libmlxc.a" ]; then
  say "compiling mlx-c (two minutes, once)"
  rm -rf "$link/obj" "$link"/mlx-c-*
  mkdir -p "$link/obj" "$mlx_c_built"
  # zig's headers for macOS lack two macros of Apple's math.h, and use libc++ symbols newer than
  # macOS 14 unless availability is enabled. -fno-sanitize: zig enables checks by default.
  printf '#undef %s\n#define %s 1\n' _LIBCPP_HAS_VENDOR_AVAILABILITY_ANNOTATIONS{,} >"$link/availability.hpp"
  flags=(-target "aarch64-macos.$minimum" -std=c++20 -O2 -w -fno-sanitize=undefined -include "$link/availability.hpp" -include "$PWD/setup/native/format.hpp"
    -I"$mlx_c" -I"$link/mlx/include" '-DINFINITY=__builtin_inff()' '-DNAN=__builtin_nanf("")')
  compile() {
    export OBJ=$link/obj COMPILE="${ZIG@Q} c++ ${flags[*]@Q}"
    # shellcheck disable=SC2016 # the inner shell expands it
    printf '%s\0' "$mlx_c"/mlx/c/*.cpp |
      xargs -0 -n 1 -P "$(getconf _NPROCESSORS_ONLN)" bash -c 'eval "$COMPILE -c \"\$1\" -o \"\$OBJ/\$(basename "\$1" .cpp).o\""' compile
  }
  step "compiling mlx-c" compile
  step "archiving libmlxc.a" "$ZIG" ar crs "$mlx_c_built/new.a" "$link"/obj/*.o
  mv "$mlx_c_built/new.a" "$mlx_c_built/libmlxc.a"
fi

# Replaces mlx-sys's build script, which would compile MLX.
cat >"$link/cargo.toml" <<CONF
[target.$target]
linker = "$link/bin/cc"
[target.$target.mlx]
rustc-link-search = ["native=$mlx_c_built", "native=$link/mlx/lib"]
rustc-link-lib = ["static=mlxc", "dylib=mlx", "dylib=c++"]
rustc-env = { OUT_DIR = "$apple/bindings/$target" }
[profile.release]
debug = false
CONF

say "building the release (four minutes, the first time)"
step "building for macOS" env PATH="$link/path:$PATH" CARGO="$apple/cargo" RUSTC="$apple/rustc" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR="$link/target" \
  SDKROOT="$link" MACOSX_DEPLOYMENT_TARGET="$minimum" CC_aarch64_apple_darwin="$link/bin/cc" AR_aarch64_apple_darwin="$link/bin/ar" \
  "$apple/cargo" build --release --locked --package openelm-cli --package openelm-ffi --target "$target" \
  -Zbuild-std=std,panic_abort --config "$link/cargo.toml"

# Puts the linked files beside MLX's files for a minimum system, and checks them together.
assemble() {
  local folder=$1 system=$2
  shift 2
  rm -rf "$folder"
  mkdir -p "$folder/bin" "$folder/lib"
  cp "$link/target/$target/release/openelm" "$folder/bin/"
  cp "$link/target/$target/release/libopenelm_ffi.dylib" "$@" "$folder/lib/"
  python3 -B apple/macho.py check "$folder" --minimum "$system" --stubs "$link/zig/lib/libc/darwin/libSystem.tbd" "$STUBS"/*.tbd ||
    die "the linked files would not load on macOS $system"
}
# The former name of the folder.
rm -rf "$link/macos"
assemble "$link/macos14" "$minimum" "$link"/mlx/lib/{libmlx.dylib,mlx.metallib}
# MLX's library for macOS 26 loads libjaccl.dylib.
assemble "$link/macos26" 26.2 "$link"/mlx26/lib/{libmlx.dylib,libjaccl.dylib,mlx.metallib}
say "linked and checked in $((SECONDS - start)) s; nothing was run"
