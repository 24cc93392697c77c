#!/usr/bin/env bash
# Steps of `make demo`: prepares MLX, builds the tool, and generates text with the bundled model.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'demo: %s\n' "$*" >&2; }

[ -f .mlx/stamp ] || say "1/3 preparing MLX under .mlx (one to two minutes, the first time only)"
setup/setup.sh
[ -x target/release/openelm ] || say "2/3 building the openelm tool (three to six minutes, the first time only)"
cargo build --release --locked --quiet --package openelm-cli
say "3/3 openelm generate --model examples/tales --prompt '...' --temp 0.7 --top-p 0.9 --seed 1"
prompt='In a dark forest there lived an old witch'
printf '\n%s' "$prompt"
target/release/openelm generate --model examples/tales --prompt "$prompt" \
  --max-tokens 180 --temp 0.7 --top-p 0.9 --repetition-penalty 1.1 --seed 1
