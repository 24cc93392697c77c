#!/usr/bin/env bash
# `make parity`: compares openelm-core with mlx-lm's OpenELM on the same MLX, `openelm convert` with
# mlx-lm's `convert`, samplers, batches and prompt caches with its own, fine-tuning with its `lora`,
# pre-training with MLX's optimizer, and pre-training data with a Python version. Results are cached:
# mlx-lm's results on 3 GB of random checkpoints are kept in out/parity until these scripts, mlx-lm
# or MLX change, and the comparison runs again only if the binaries change. FRESH=1 starts over;
# FULL=1 adds cases; LONG=1 also measures position 2,000 of the complete 270M. OPENELM_TEST_DATA
# names a folder with llama-tokenizer/tokenizer.json; without it the cases with that tokenizer are
# skipped.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=$PWD/out/parity
mlxc=$PWD/.mlx/lib/libmlxc.so preload=$PWD/.mlx/lib/libmlxc.so
[ "$(uname -s)" != Darwin ] || mlxc=$PWD/.mlx/lib/libmlxc.a preload=

say() { printf 'parity: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

parity/setup.sh
[ -f "$mlxc" ] || die "$mlxc is missing; run make setup"
trap 'say "$SECONDS s"' EXIT

# On Linux, libmlxc.so provides the BLAS and openelm-core's MLX. It is preloaded before Python loads
# its own copy, because a process can have only one MLX. On macOS, both use Accelerate and Metal.
oracle() {
  LD_PRELOAD=$preload PYTHONPATH=$PWD/.mlx/oracle PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 python3 "$@"
}
made_from="FULL=${FULL:-0} LONG=${LONG:-0} $(cat parity/*.py .mlx/stamp .mlx/oracle/stamp \
  openelm-core/tests/fixtures/tales/* | cksum)"
# by_mlx_lm NAME SCRIPT: runs the script to fill out/parity/NAME, unless the result is current.
by_mlx_lm() {
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
# The options of `make test-rust`, so that nothing is built twice.
workspace=(--locked --workspace --exclude mlx-c-bindings --features openelm-ffi/inject-faults)
core_test() {
  cargo test --quiet "${workspace[@]}" --test "$1" -- --include-ignored --nocapture
}

cargo build --quiet "${workspace[@]}"
openelm=${CARGO_TARGET_DIR:-target}/debug/openelm
live=(--test parity_live --test samplers --test prompt_cache_live --test convert_live --test finetune_live --test pretrain_live --test corpus_live)
built=$(cargo test "${workspace[@]}" --no-run "${live[@]}" 2>&1) || { echo "$built" >&2; die "the tests do not compile"; }
programs=() # The bash of macOS has no mapfile.
while read -r program; do programs+=("$program"); done < <(sed -n 's/^ *Executable .*(\(.*\))$/\1/p' <<<"$built")
[ ${#programs[@]} = 7 ] || { echo "$built" >&2; die "${#programs[@]} test programs, not 7"; }
compared="$made_from OPENELM_TEST_DATA=${OPENELM_TEST_DATA:-} $(cat "${programs[@]}" "$openelm" "$mlxc" parity/run.sh | cksum)"
if [ "${FRESH:-0}" != 1 ] && [ "$(cat "$folder/passed" 2>/dev/null)" = "$compared" ]; then
  say "the same programs passed on $(date -r "$folder/passed" '+%F %R'); FRESH=1 compares again"
  exit
fi
rm -f "$folder/passed"

say "mlx-lm on random checkpoints"
by_mlx_lm models make_checkpoints.py

say "openelm-core on the same checkpoints"
OPENELM_PARITY=$folder/models core_test parity_live

say "mlx-lm's samplers on random logits"
by_mlx_lm samplers samplers.py

say "openelm-core's samplers on the same logits"
OPENELM_SAMPLERS=$folder/samplers core_test samplers
say "mlx-lm's prompt caches"
by_mlx_lm prompt-cache prompt_cache.py

say "openelm-core on mlx-lm's prompt caches"
OPENELM_PROMPT_CACHE=$folder/prompt-cache core_test prompt_cache_live

say "mlx-lm on openelm-core's prompt caches"
oracle parity/prompt_cache.py "$folder/prompt-cache" check

say "batches of openelm generate beside mlx-lm's"
oracle parity/batch.py "$folder/batch" "$openelm"

say "mlx-lm's conversions"
by_mlx_lm convert convert.py

say "openelm convert compared with mlx-lm's convert"
oracle parity/convert.py "$folder/convert" "$openelm"

say "openelm-core on mlx-lm's conversions"
OPENELM_CONVERT=$folder/convert core_test convert_live

say "mlx-lm's trainer on a random model"
by_mlx_lm finetune finetune.py

say "openelm-core's trainer on the same rows"
OPENELM_FINETUNE=$folder/finetune core_test finetune_live

say "mlx-lm on openelm-core's adapters"
oracle parity/load_adapters.py "$folder/finetune"

say "mlx-lm's network under MLX's optimizer, from random weights"
by_mlx_lm pretrain pretrain.py

say "openelm-core's pre-training on the same rows"
OPENELM_PRETRAIN=$folder/pretrain core_test pretrain_live

say "documents to sequences in Python"
rm -rf "$folder/corpus"
oracle parity/corpus.py "$folder/corpus" "$openelm"

say "openelm-core on the same files"
OPENELM_CORPUS=$folder/corpus core_test corpus_live

say "one Hub cache for openelm and huggingface_hub"
oracle parity/hub.py "$folder/hub" "$openelm"

printf '%s' "$compared" >"$folder/passed"
