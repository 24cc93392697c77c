#!/usr/bin/env bash
# Measures `openelm` and mlx-lm 0.32.2 side by side and writes the tables to bench/README.md. Takes
# about 50 minutes on two cores; other load on the machine distorts the numbers. Options are passed
# to inference.py, convert.py, decoding.py and swift.py.
#
# OPENELM_TEST_DATA names a folder of data outside this repository (bench/README.md). Without it,
# fine-tuning and pre-training are skipped, and the model gets a small tokenizer.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'bench: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ -x target/release/openelm ] || die "target/release/openelm is missing; run make build"
text=
if [ -n "${OPENELM_TEST_DATA:-}" ]; then
  text=$OPENELM_TEST_DATA/corpus/fairytales_train.jsonl
  [ -f "$text" ] || die "OPENELM_TEST_DATA: $text is missing"
fi
parity/setup.sh
export PYTHONDONTWRITEBYTECODE=1
python3 bench/inference.py "$@"
python3 bench/kernels.py "$@"
python3 bench/convert.py "$@"
python3 bench/decoding.py "$@"

# Only with an existing Swift toolchain; `make setup-swift` prepares one.
if [ -f .mlx/swift/stamp ] || command -v swift >/dev/null; then
  bench/swift.sh "$@"
else
  say "no Swift toolchain (make setup-swift): the table \"Through Swift\" is skipped"
fi

python3 bench/serve.py speed | tee bench/serve.json
python3 bench/fsdp.py | tee bench/fsdp.json

if [ -n "$text" ]; then
  PYTHONPATH=$PWD/.mlx/oracle python3 bench/finetune.py target/release/openelm out/bench/OpenELM-270M \
    out/bench/OpenELM-270M/tokenizer.json "$text" "$PWD/.mlx/lib/libmlxc.so" | tee bench/finetune.json
  cargo build --quiet --release --locked --package openelm-core --example corpus
  PYTHONPATH=$PWD/.mlx/oracle python3 bench/pretrain.py target/release/openelm examples/tales "$text" \
    "$PWD/.mlx/lib/libmlxc.so" | tee bench/pretrain.json
  if [ -f .mlx/lm-eval/stamp ]; then
    PYTHONPATH=$PWD/.mlx/oracle:$PWD/.mlx/lm-eval python3 bench/evaluate.py target/release/openelm \
      out/bench/OpenELM-270M "$OPENELM_TEST_DATA/eval/ARC-Easy.jsonl" "$PWD/.mlx/lib/libmlxc.so" | tee bench/evaluate.json
  else
    say "no lm-eval (make parity-evaluate installs it): evaluation (evaluate.json) is skipped"
  fi
else
  say "OPENELM_TEST_DATA is not set: fine-tuning, pre-training and evaluation (*.json) are skipped"
fi
