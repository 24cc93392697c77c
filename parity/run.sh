#!/usr/bin/env bash
# Compares openelm-core with mlx-lm's OpenELM on the same MLX, `openelm convert` with its
# `convert`, fine-tuning with its `lora`, pre-training with MLX's optimizer, and pre-training data
# with Python's: `make parity`. Both sides run live, but what mlx-lm made of its 2.5 GB of random
# checkpoints is kept under out/parity, since it changes only with these scripts, mlx-lm and MLX:
# the next run compares with it. FRESH=1 has mlx-lm make it again. FULL=1 takes more cases; LONG=1
# also measures position 2,000 of the whole 270M.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/out/parity
mlxc=$PWD/.mlx/lib/libmlxc.so

say() { printf 'parity: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

parity/setup.sh
[ -f "$mlxc" ] || die "$mlxc is missing; run make setup"
trap 'say "$SECONDS s"' EXIT

# libmlxc.so brings the BLAS and, before Python can load its own copy, the same MLX that
# openelm-core links to: one program has one MLX.
oracle() {
  LD_PRELOAD=$mlxc PYTHONPATH=$PWD/.mlx/oracle PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 python3 "$@"
}
made_from="FULL=${FULL:-0} LONG=${LONG:-0} $(cat parity/*.py .mlx/stamp .mlx/oracle/stamp \
  openelm-core/tests/fixtures/tales/* | cksum)"
# make NAME SCRIPT: has the script fill out/parity/NAME, unless it has done so from the same.
make() {
  local target=$folder/$1
  if [ "${FRESH:-0}" != 1 ] && [ "$(cat "$target.made" 2>/dev/null)" = "$made_from" ]; then
    say "  kept from an earlier run"
    return
  fi
  rm -rf "$target" "$target.made"
  mkdir -p "$folder"
  oracle "parity/$2" "$target"
  printf '%s' "$made_from" >"$target.made"
}
# The words of `make test`, so that nothing is built twice.
workspace=(--locked --quiet --workspace --features openelm-ffi/inject-faults)
core_test() {
  cargo test "${workspace[@]}" --test "$1" -- --include-ignored --nocapture
}

say "mlx-lm on random checkpoints"
make models oracle.py

say "openelm-core on the same"
OPENELM_PARITY=$folder/models core_test parity_live

say "mlx-lm's conversions"
make convert convert.py

say "openelm convert beside them"
cargo build "${workspace[@]}"
openelm=${CARGO_TARGET_DIR:-target}/debug/openelm
oracle parity/convert.py "$folder/convert" "$openelm"

say "openelm-core on what mlx-lm converted"
OPENELM_CONVERT=$folder/convert core_test convert_live

say "mlx-lm's trainer on a random model"
make finetune finetune.py

say "openelm-core's on the same rows"
OPENELM_FINETUNE=$folder/finetune core_test finetune_live

say "mlx-lm on the adapters that openelm-core wrote"
oracle parity/load_adapters.py "$folder/finetune"

say "mlx-lm's network under MLX's optimizer, from random weights"
make pretrain pretrain.py

say "openelm-core's pre-training on the same rows"
OPENELM_PRETRAIN=$folder/pretrain core_test pretrain_live

say "documents to sequences in Python"
rm -rf "$folder/corpus"
oracle parity/corpus.py "$folder/corpus" "$openelm"

say "openelm-core on the same files"
OPENELM_CORPUS=$folder/corpus core_test corpus_live
