#!/usr/bin/env bash
# Fuzzes each reader for SECONDS_EACH seconds (60), starting from its seeds. Needs cargo-fuzz
# (`cargo install cargo-fuzz`); the sanitizer's coverage flags need RUSTC_BOOTSTRAP on stable Rust.
set -euo pipefail
cd "$(dirname "$0")"
command -v cargo-fuzz >/dev/null 2>&1 || { echo "fuzz: cargo-fuzz is missing; cargo install cargo-fuzz" >&2; exit 1; }
export RUSTC_BOOTSTRAP=1
mkdir -p corpus/torch corpus/gguf corpus/safetensors
cp ../openelm-core/tests/fixtures/torch/*.pt corpus/torch
cp seeds/gguf/*.gguf corpus/gguf
cp seeds/safetensors/*.safetensors corpus/safetensors
for target in torch gguf safetensors; do
  echo "fuzz: $target" >&2
  cargo fuzz run --sanitizer none --fuzz-dir . "$target" -- \
    -max_total_time="${SECONDS_EACH:-60}" -rss_limit_mb=2048 -timeout=10 -print_final_stats=1
done
