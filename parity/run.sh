#!/usr/bin/env bash
# Compares openelm-core with mlx-lm's OpenELM on the same MLX: `make parity`. Writes 3 GB of random
# checkpoints under out/parity and deletes them afterwards; KEEP=1 keeps them. LONG=1 also measures
# position 2,000 of the whole 270M.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/out/parity
mlxc=$PWD/.mlx/lib/libmlxc.so

say() { printf 'parity: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

parity/setup.sh
[ -f "$mlxc" ] || die "$mlxc is missing; run make setup"

finish() {
  [ "${KEEP:-0}" = 1 ] || rm -rf "$folder"
  say "${SECONDS} s"
}
trap finish EXIT
rm -rf "$folder"

say "mlx-lm on random checkpoints in out/parity"
# libmlxc.so brings the BLAS and, before Python can load its own copy, the same MLX that
# openelm-core links to: one program has one MLX.
LD_PRELOAD=$mlxc PYTHONPATH=$PWD/.mlx/oracle PYTHONNOUSERSITE=1 python3 parity/oracle.py "$folder"

say "openelm-core on the same"
OPENELM_PARITY=$folder cargo test --locked --quiet --package openelm-core --features parity \
  --test parity_live -- --nocapture
