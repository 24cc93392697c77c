#!/usr/bin/env bash
# `make parity-server`: compares `openelm serve` with `openelm evaluate` by lm-eval 0.4.13 and uses
# the official `openai` client, which are installed to the ignored folder `.mlx/lm-eval-server`
# (500 MB, once). OPENELM_TEST_DATA names a folder with eval/. Arguments are more models.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=$PWD/.mlx/lm-eval-server
log=$PWD/.mlx/lm-eval-server.log

say() { printf 'parity-server: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ -x target/release/openelm ] || die "target/release/openelm is missing; run make build"
[ -n "${OPENELM_TEST_DATA:-}" ] || die "OPENELM_TEST_DATA is not set: it names a folder with eval/"
stamp="$(python3 -V) lm-eval 0.4.13 openai 3.57.0 transformers 5.24.0"
if [ ! -f "$packages/stamp" ] || [ "$(cat "$packages/stamp")" != "$stamp" ]; then
  say "installing lm-eval and openai in .mlx/lm-eval-server (about two minutes, once)"
  rm -rf "$packages"
  mkdir -p "$packages"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target "$packages" 'lm-eval[api]==0.4.13' openai==3.57.0 transformers==5.24.0 >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "pip install failed; the whole log is $log"; }
  printf '%s' "$stamp" >"$packages/stamp"
fi
PYTHONPATH=$packages PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 \
  python3 parity/server.py target/release/openelm out/parity-server "$@"
