#!/usr/bin/env bash
# Measures `openelm` side by side with mlx-lm 0.32.2 and writes the tables into bench/README.md.
# Takes about three quarters of an hour on two cores; anything else that runs meanwhile spoils the numbers.
# Options are those of inference.py and of convert.py, which have the same.
set -euo pipefail
cd "$(dirname "$0")/.."

[ -x target/release/openelm ] || { echo "bench: target/release/openelm is missing; run \`make build\`" >&2; exit 1; }
parity/setup.sh
export PYTHONDONTWRITEBYTECODE=1
python3 bench/inference.py "$@"
python3 bench/convert.py "$@"

# Where a Swift toolchain is there already; `make setup-swift` prepares one.
if [ -f .mlx/swift/stamp ] || command -v swift >/dev/null; then
  bench/swift.sh "$@"
else
  echo "bench: Swift is left out: run \`make setup-swift\`" >&2
fi

text=../shared/data/corpus/fairytales_train.jsonl
if [ -f "$text" ]; then
  PYTHONPATH=$PWD/.mlx/oracle python3 bench/finetune.py target/release/openelm out/bench/OpenELM-270M \
    out/bench/OpenELM-270M/tokenizer.json "$text" "$PWD/.mlx/lib/libmlxc.so" | tee bench/finetune.json
  cargo build --quiet --release --locked --package openelm-core --example corpus
  PYTHONPATH=$PWD/.mlx/oracle python3 bench/pretrain.py target/release/openelm examples/tales "$text" \
    "$PWD/.mlx/lib/libmlxc.so" | tee bench/pretrain.json
else
  echo "bench: fine-tuning and pre-training are left out: $text is not there" >&2
fi
