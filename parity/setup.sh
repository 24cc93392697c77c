#!/usr/bin/env bash
# Installs mlx-lm 0.32.2, the reference of `make parity`, and its dependencies to the ignored folder
# `.mlx/oracle`, from pinned and hashed wheels. A second run only compares a stamp.
set -euo pipefail
cd "$(dirname "$0")/.."
oracle=$PWD/.mlx/oracle

say() { printf 'parity: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

platform=$(uname -s)-$(uname -m)
case $platform in
  Linux-x86_64) requirements=parity/requirements.txt newest=3.13 ;;
  Darwin-arm64) requirements=parity/requirements-macos.txt newest=3.14 ;;
  *) die "the oracle's wheels are for Linux on x86_64 and macOS on arm64, not for $platform" ;;
esac
command -v python3 >/dev/null 2>&1 || die "python3 is missing; install Python 3.11 to $newest (Debian: apt-get install python3)"
version=$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')
case $version in
  3.11 | 3.12 | 3.13 | "$newest") ;;
  *) die "the oracle's wheels are for Python 3.11 to $newest, not for $version" ;;
esac

stamp="$version $(cksum <"$requirements")"
if [ -f "$oracle/stamp" ] && [ "$(cat "$oracle/stamp")" = "$stamp" ]; then
  exit 0
fi

python3 -m pip --version >/dev/null 2>&1 || die "pip is missing; install it (Debian: apt-get install python3-pip)"
say "installing mlx-lm 0.32.2 in .mlx/oracle (100 MB, about a minute, once)"
log=$PWD/.mlx/oracle.log
rm -rf "$oracle"
mkdir -p "$oracle"
python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-deps \
  --require-hashes --only-binary=:all: --target "$oracle" --requirement "$requirements" \
  >"$log" 2>&1 || { tail -n 5 "$log" >&2; die "pip install failed; the whole log is $log"; }
printf '%s' "$stamp" >"$oracle/stamp"
