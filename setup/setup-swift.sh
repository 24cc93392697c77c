#!/usr/bin/env bash
# Prepares a Swift toolchain for Debian Linux (x86_64) in the ignored folder `.mlx/swift`, for the
# tests of the Swift package. On a Mac it does nothing, because Xcode includes Swift.
#
# Debian 13 (trixie) and later package Swift 6.0. The packages are downloaded and unpacked, not
# installed, so root is not needed. Each program, and everything it links, uses the C library in the
# same folder, so that the host's C library may be older and is not used. The host provides headers
# and the linker's start files: gcc, g++ and libc6-dev. A second run only compares a stamp.
set -euo pipefail
cd "$(dirname "$0")/.."
swift=$PWD/.mlx/swift
release=trixie
root=$swift/root
bin=$root/usr/libexec/swift/bin
libs=$root/usr/lib/x86_64-linux-gnu
log=$swift/log

say() { printf 'setup-swift: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
need() { command -v "$1" >/dev/null 2>&1 || die "$1 is missing; $2"; }
# Runs a step, appends its output to the log, and reports the step if it fails.
step() {
  local what=$1
  shift
  "$@" >>"$log" 2>&1 || { tail -n 5 "$log" >&2; die "$what failed; the whole log is $log"; }
}

if [ "$(uname -s)" = Darwin ]; then
  need swift "install Xcode 16 or newer, or its command-line tools: xcode-select --install"
  exit 0
fi
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || die "this needs a Mac, or Debian Linux on x86_64"

# Absolute paths are written into the programs, so the stamp includes the folder.
stamp="$swift $(cksum <setup/setup-swift.sh)"
if [ -f "$swift/stamp" ] && [ "$(cat "$swift/stamp")" = "$stamp" ]; then
  exit 0
fi

need apt-get "this needs Debian"
need dpkg-deb "this needs Debian"
need g++ "install it (apt-get install g++); Swift uses its headers and libraries to link"
key=/usr/share/keyrings/debian-archive-keyring.gpg
[ -f "$key" ] || die "$key is missing; apt-get install debian-archive-keyring"
# shellcheck disable=SC2016 # apt fills this in
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' | awk '/\/debian\/?$/ && !n++')
[ -n "$mirror" ] || die "apt has no Debian mirror (an address that ends in /debian); run apt-get update first"

rm -rf "$swift"
mkdir -p "$swift"/apt/{debs,state/lists/partial,cache/archives/partial} "$root"
: >"$log"
: >"$swift/apt/status"
echo "deb [signed-by=$key] $mirror $release main" >"$swift/apt/sources.list"
export APT_CONFIG=$swift/apt/apt.conf
cat >"$APT_CONFIG" <<CONF
Dir::Etc::SourceList "$swift/apt/sources.list";
Dir::Etc::SourceParts "/dev/null";
Dir::State "$swift/apt/state";
Dir::State::Status "$swift/apt/status";
Dir::Cache "$swift/apt/cache";
APT::Architecture "amd64";
APT::Architectures "amd64";
APT::Sandbox::User "$(id -un)";
Acquire::Languages "none";
Debug::NoLocking "1";
CONF

say "downloading Swift of Debian $release (260 MB, once)"
step "reading the package list of Debian $release" apt-get --error-on=any update
# Libraries of swiftlang's programs, and patchelf, which sets their paths.
packages=(swiftlang libswiftlang libc6 libgcc-s1 libstdc++6 libedit2 libbsd0 libmd0 libncurses6
  libtinfo6 libsqlite3-0 libuuid1 libxml2 liblzma5 libzstd1 zlib1g patchelf)
(cd "$swift/apt/debs" && step "downloading Swift" apt-get download "${packages[@]}")
# The debugger, the language server and the static libraries are half of the size, and not used
# here.
unpack() {
  dpkg-deb --fsys-tarfile "$1" | tar -x -C "$root" \
    --exclude='./usr/share/*' --exclude='*/bin/lldb*' --exclude='*/bin/clangd' \
    --exclude='*/bin/sourcekit-lsp' --exclude='*/lib/liblldb*' --exclude='*/libsourcekitdInProc.so' \
    --exclude='*/libLTO*' --exclude='*/lib/swift_static' --exclude='*/usr/sbin/*'
}
for deb in "$swift"/apt/debs/*.deb; do
  step "unpacking $(basename "$deb")" unpack "$deb"
done
rm -rf "$swift/apt"

say "binding its programs to its C library"
loader=$libs/ld-linux-x86-64.so.2
patchelf() { "$loader" --library-path "$libs" "$root/usr/bin/patchelf" "$@"; }
is_elf() { [ ! -L "$1" ] && [ "$(head -c 4 "$1" | tr -d '\0')" = $'\x7fELF' ]; }
bind() {
  local old interpreter=()
  [ "$(dirname "$1")" = "$bin" ] && interpreter=(--set-interpreter "$loader")
  old=$(patchelf --print-rpath "$1")
  # DT_RPATH, not DT_RUNPATH: it applies to the libraries' dependencies, too.
  patchelf "${interpreter[@]}" --force-rpath --set-rpath "${old:+$old:}$libs" "$1"
}
while IFS= read -r -d '' file; do
  is_elf "$file" || continue
  step "binding $file" bind "$file"
done < <(find "$bin" -type f -print0; find "$root/usr/libexec/swift/lib" -name '*.so*' -print0)

# Programs linked by Swift (tests and package manifests) must start with the same C library.
rm "$bin/clang"
cat >"$bin/clang" <<CLANG
#!/bin/sh
exec "$bin/clang-17" --start-no-unused-arguments \\
  -Wl,--dynamic-linker=$loader -Wl,--disable-new-dtags,-rpath,$libs \\
  --end-no-unused-arguments "\$@"
CLANG
chmod +x "$bin/clang"
step "starting Swift" "$bin/swift" --version
printf '%s' "$stamp" >"$swift/stamp"
say "done: $("$bin/swift" --version 2>/dev/null | head -n 1)"
