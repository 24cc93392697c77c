#!/usr/bin/env bash
# `make parity-evaluate`: compares `openelm score` with lm-eval 0.4.13 and mlx-lm's model class for
# it, which are installed to the ignored folders `.mlx/oracle` and `.mlx/lm-eval` (400 MB, once).
# OPENELM_TEST_DATA names a folder with eval/ and llama-tokenizer/. Arguments are more models.
set -euo pipefail
cd "$(dirname "$0")/.."
lm_eval=$PWD/.mlx/lm-eval
log=$PWD/.mlx/lm-eval.log

say() { printf 'parity-evaluate: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ -x target/release/openelm ] || die "target/release/openelm is missing; run make build"
[ -n "${OPENELM_TEST_DATA:-}" ] || die "OPENELM_TEST_DATA is not set: it names a folder with eval/ and llama-tokenizer/"
parity/setup.sh
stamp="$(python3 -V) lm-eval 0.4.13"
if [ ! -f "$lm_eval/stamp" ] || [ "$(cat "$lm_eval/stamp")" != "$stamp" ]; then
  say "installing lm-eval in .mlx/lm-eval (about two minutes, once)"
  rm -rf "$lm_eval"
  mkdir -p "$lm_eval"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target "$lm_eval" lm-eval==0.4.13 >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "pip install failed; the whole log is $log"; }
  printf '%s' "$stamp" >"$lm_eval/stamp"
fi
preload=$PWD/.mlx/lib/libmlxc.so
[ "$(uname -s)" != Darwin ] || preload=
# The oracle's packages come first: lm-eval needs some of them too.
LD_PRELOAD=$preload PYTHONPATH=$PWD/.mlx/oracle:$lm_eval PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \
  python3 parity/evaluate.py target/release/openelm out/parity-evaluate "$@"
