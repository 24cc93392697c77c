#!/usr/bin/env bash
# Type-checks openelm-core, openelm-cli and openelm-ffi for macOS and iOS on Debian Linux (x86_64),
# with mlx-rs's Apple features and warnings as errors. Nothing is linked or run.
#
# `cargo check` needs no linker and no SDK, but it needs Rust's standard library for the target.
# Debian packages the library's source and a compiler of the same version: both are downloaded from
# Debian's testing release and unpacked (not installed) in `.mlx/apple`. They run with their own
# loader and C library, without root. A second run reuses the files.
set -euo pipefail
cd "$(dirname "$0")/.."
apple=$PWD/.mlx/apple
release=forky
targets=(aarch64-apple-darwin aarch64-apple-ios)
log=$apple/log

say() { printf 'check-apple: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing; $2"; }
# Runs a step, appends its output to the log, and reports the step if it fails.
step() {
  local what=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 5 "$log" >&2; die "$what failed; the whole log is $log"; }
}

[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "this needs Linux on x86_64; elsewhere use cargo check --target"
need apt-get "this needs Debian"
need dpkg "this needs Debian"
need cc "install a C compiler (apt-get install gcc libc6-dev); Rust's build scripts are linked with it"
mkdir -p "$apple"
: >"$log"

# Downloads and unpacks the toolchain. apt's state is in the folder `apt`, without installed
# packages, so that all libraries of the other release are included.
unpack() {
  local mirror key llvm packages deb
  # shellcheck disable=SC2016 # apt fills this in
  mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | awk '/\/debian\/?$/ && !n++')
  [ -n "$mirror" ] || die "apt's sources name no Debian mirror (an address that ends in /debian)"
  key=/usr/share/keyrings/debian-archive-keyring.gpg
  [ -f "$key" ] || die "$key is missing; apt-get install debian-archive-keyring"
  rm -rf "$apple/apt" "$apple/root" "$apple/target"
  mkdir -p "$apple"/apt/{debs,root,state/lists/partial,cache/archives/partial}
  cd "$apple/apt/debs"
  : >../status
  echo "deb [signed-by=$key] $mirror $release main" >../sources.list
  export APT_CONFIG=$apple/apt/apt.conf
  cat >"$APT_CONFIG" <<CONF
Dir::Etc::SourceList "$apple/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$apple/apt/state";
Dir::State::Status "$apple/apt/status";
Dir::Cache "$apple/apt/cache";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "root";
APT::Install-Recommends "false";
Acquire::Languages "none";
CONF
  step "reading the package list of Debian $release" apt-get --error-on=any update

  # bindgen uses libclang from rustc's LLVM version.
  packages=$(apt-get --simulate install cargo rustc rust-src 2>>"$log") || die "Debian $release cannot install rustc; the log is $log"
  llvm=$(sed -n 's/^Inst libllvm\([0-9]*\) .*/\1/p' <<<"$packages")
  packages=$(apt-get --simulate install cargo rustc rust-src "libclang1-$llvm" "libclang-common-$llvm-dev" 2>>"$log") ||
    die "Debian $release cannot install libclang1-$llvm; the log is $log"
  # The host's C compiler links host programs, so the other release's compiler is not needed.
  packages=$(sed -n 's/^Inst \([^ ]*\) .*/\1/p' <<<"$packages" |
    grep -v -E '^(gcc|cpp|binutils|libc6-dev|libc-dev-bin|linux-libc-dev|lib[a-z]*san[0-9]|libgcc-[0-9]+-dev)')
  # shellcheck disable=SC2086 # one word a package
  step "downloading Rust" apt-get download $packages
  for deb in *.deb; do
    step "unpacking $deb" dpkg --extract "$deb" ../root
  done
  # rust-src contains the whole compiler; the standard library is in `library`.
  rm -rf ../root/usr/src/rustc-*/{src,compiler}
  mv ../root "$apple/root"
  rm -rf "$apple/apt"
}
if [ ! -d "$apple/root" ]; then
  say "downloading Rust of Debian $release (170 MB, once)"
  (unpack)
fi

# Each program starts with the loader of its own C library, so that the host's library is not used.
# `CARGO` is set because Cargo would otherwise report the loader's path.
usr=$apple/root/usr
loader=("$usr/lib64/ld-linux-x86-64.so.2" --library-path "$usr/lib/x86_64-linux-gnu")
for program in cargo rustc; do
  printf '#!/bin/sh\nexec %s "$@"\n' "${loader[*]@Q} ${usr@Q}/bin/$program" >"$apple/$program"
  chmod +x "$apple/$program"
done
export CARGO=$apple/cargo RUSTC=$apple/rustc CARGO_TARGET_DIR=$apple/target
# Building the standard library is unstable; this enables it on a stable compiler.
export RUSTC_BOOTSTRAP=1

# Programs that run here (procedural macros, bindgen) run briefly: compile them without
# optimisation.
cat >"$apple/cargo.toml" <<CONF
[profile.dev]
debug = false
incremental = false
[profile.dev.package."*"]
opt-level = 0
CONF

say "declaring mlx-c for Apple systems ($("$RUSTC" --version))"
step "cargo fetch" "$CARGO" fetch --locked
mlx_sys=$("$CARGO" metadata --format-version 1 --locked 2>>"$log" |
  grep -o '"manifest_path":"[^"]*/mlx-sys-[0-9.]*/Cargo.toml"' | cut -d '"' -f 4) || die "cargo metadata names no mlx-sys; the log is $log"
step "building mlx-c-bindings" "$CARGO" build --locked --package mlx-c-bindings --config "$apple/cargo.toml"
clang=$(echo "$usr"/lib/llvm-*/lib)
# Declarations are generated for the target, as in mlx-sys's build script on a Mac. Three headers of
# Apple's SDK are replaced by the few lines that mlx-c uses.
mkdir -p "$apple/include"
echo 'typedef struct __sFILE FILE;' >"$apple/include/stdio.h"
echo '#include <stddef.h>' >"$apple/include/stdlib.h"
echo '#define complex _Complex' >"$apple/include/complex.h"
for target in "${targets[@]}"; do
  out=$apple/bindings/$target
  mkdir -p "$out"
  step "declaring mlx-c for $target" env LIBCLANG_PATH="$(dirname "$(echo "$clang"/libclang-*.so.1)")" \
    "${loader[@]}" "$apple/target/debug/mlx-c-bindings" "${mlx_sys%/Cargo.toml}/src/mlx-c" "$out/new.rs" \
    "--target=${target/aarch64/arm64}" -nostdinc -isystem "$apple/include" -isystem "$(echo "$clang"/clang/*/include)"
  cmp -s "$out/new.rs" "$out/bindings.rs" || cp "$out/new.rs" "$out/bindings.rs"
  # Replaces mlx-sys's build script, which would compile MLX.
  printf '[target.%s.mlx]\nrustc-env = { OUT_DIR = "%s" }\n' "$target" "$out" >>"$apple/cargo.toml"
done

# zstd's C code is needed for linking only: a compiler that does nothing replaces its compiler.
no_c=(SDKROOT="$apple" IPHONEOS_DEPLOYMENT_TARGET=17.0)
for target in "${targets[@]}"; do
  no_c+=("CC_${target//-/_}=true" "AR_${target//-/_}=true")
done

for target in "${targets[@]}"; do
  say "checking $target"
  env "${no_c[@]}" "$CARGO" check --quiet --locked --package openelm-core --package openelm-cli --package openelm-ffi --all-targets --target "$target" \
    -Zbuild-std=std,panic_abort,test --config "$apple/cargo.toml" --config 'build.warnings="deny"' ||
    die "$target does not type-check"
done
say "both targets type-check"
