#!/usr/bin/env bash
# Generates text with the program of apple/consumer.sh. On a Mac, the GPU kernels are then renamed to
# those of another version of MLX: the program has to refuse them and name both files.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'consumer-run: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
[ -d out/consumer/.build ] || die "out/consumer is not built; run make consumer"

. swift/toolchain.sh
program=$(swift build --package-path out/consumer --show-bin-path)/consumer
"$program" examples/tales
[ "$(uname -s)" = Darwin ] && [ -z "${OPENELM_LIBRARY_DIR:-}" ] || exit 0

kernels=$(find "$(dirname "$program")/OpenELM_OpenELM.bundle" -name 'mlx-*-macos.metallib')
[ -n "$kernels" ] || die "the package's bundle has no GPU kernels"
other=$(dirname "$kernels")/mlx-0.0.0-macos.metallib
mv "$kernels" "$other"
trap 'mv "$other" "$kernels"' EXIT
! said=$("$program" examples/tales 2>&1) || die "the program took the kernels $(basename "$other")"
case $said in
  *"$(basename "$kernels")"*mlx-0.0.0* | *mlx-0.0.0*"$(basename "$kernels")"*) say "kernels of another MLX are refused" ;;
  *) printf '%s\n' "$said"; die "the error does not name $(basename "$kernels") and $(basename "$other")" ;;
esac
