#!/usr/bin/env bash
# Trains the bundled model: `train.sh BOOKS TALES VALID TEST OUT`, with JSONL files of {"text"} rows
# and an output folder. Takes two to three hours on two cores; an interrupted run continues.
# PROCESSES=2 shares the batches between two processes.
set -euo pipefail
[ $# = 5 ] || { sed -n 2,4p "$0"; exit 2; }
here=$(dirname "$0")
openelm=${OPENELM:-target/release/openelm}
books=$1 tales=$2 valid=$3 test=$4 out=$5
mkdir -p "$out"
[ -f "$out/train.jsonl" ] || python3 "$here/prepare.py" "$out/train.jsonl" "$valid,$test" "$books" "$tales"
[ -d "$out/tokenizer" ] || "$openelm" tokenizer train --data "$out/train.jsonl" --vocab-size 4096 --output "$out/tokenizer"
again=()
[ ! -f "$out/run/training_state.safetensors" ] || again=(--resume)
"$openelm" pretrain --config "$here/train.toml" --data "$out/train.jsonl" --valid "$valid" --tokenizer "$out/tokenizer" \
  --output "$out/run" --processes "${PROCESSES:-1}" "${again[@]}"
"$openelm" convert "$out/run/average" "$out/tales" --dtype bfloat16
