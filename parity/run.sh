#!/usr/bin/env bash
# Compares openelm-core with mlx-lm's OpenELM on the same MLX, `openelm convert` with its
# `convert`, fine-tuning with its `lora`, pre-training with MLX's optimizer, and pre-training data
# with Python's: `make parity`. Writes 3 GB of random checkpoints under out/parity and deletes them
# afterwards; KEEP=1 keeps them. LONG=1 also measures position 2,000 of the whole 270M.
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

# libmlxc.so brings the BLAS and, before Python can load its own copy, the same MLX that
# openelm-core links to: one program has one MLX.
oracle() {
  LD_PRELOAD=$mlxc PYTHONPATH=$PWD/.mlx/oracle PYTHONNOUSERSITE=1 python3 "$@"
}
# The whole workspace, so that dependencies keep the features that `make test` built them with.
workspace=(--locked --quiet --workspace --features openelm-core/parity)
core_test() {
  cargo test "${workspace[@]}" --test "$1" -- --nocapture
}

say "mlx-lm on random checkpoints in out/parity"
oracle parity/oracle.py "$folder"

say "openelm-core on the same"
OPENELM_PARITY=$folder core_test parity_live

say "openelm convert beside mlx-lm's"
cargo build "${workspace[@]}"
openelm=${CARGO_TARGET_DIR:-target}/debug/openelm
oracle parity/convert.py "$folder/convert" "$openelm"

say "openelm-core on what mlx-lm converted"
OPENELM_CONVERT=$folder/convert core_test convert_live

say "mlx-lm's trainer on a random model"
oracle parity/finetune.py "$folder/finetune"

say "openelm-core's on the same rows"
OPENELM_FINETUNE=$folder/finetune core_test finetune_live

say "mlx-lm on the adapters that openelm-core wrote"
oracle parity/load_adapters.py "$folder/finetune"

say "mlx-lm's network under MLX's optimizer, from random weights"
oracle parity/pretrain.py "$folder/pretrain"

say "openelm-core's pre-training on the same rows"
OPENELM_PRETRAIN=$folder/pretrain core_test pretrain_live

say "documents to sequences in Python"
oracle parity/corpus.py "$folder/corpus" "$openelm"

say "openelm-core on the same files"
OPENELM_CORPUS=$folder/corpus core_test corpus_live
