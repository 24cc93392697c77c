#!/usr/bin/env bash
# `make parity-server`: compares `openelm serve` with `openelm evaluate` by lm-eval 0.4.13 and uses
# the official `openai` client, which are installed to the ignored folder `.mlx/lm-eval-server`
# (500 MB, once). OPENELM_TEST_DATA names a folder with eval/; without it, only the client is
# installed and used. Arguments are more models.
set -euo pipefail
cd "$(dirname "$0")/.."
packages=$PWD/.mlx/lm-eval-server
log=$PWD/.mlx/lm-eval-server.log

say() { printf 'parity-server: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ -x target/release/openelm ] || die "target/release/openelm is missing; run make build"
client=openai==3.57.0
wanted=("$client")
if [ -n "${OPENELM_TEST_DATA:-}" ]; then
  wanted=('lm-eval[api]==0.4.13' "$client" transformers==5.24.0)
else
  say "OPENELM_TEST_DATA is not set: lm-eval is skipped"
  packages+=-client
fi
stamp="$(python3 -V) ${wanted[*]}"
if [ ! -f "$packages/stamp" ] || [ "$(cat "$packages/stamp")" != "$stamp" ]; then
  say "installing ${wanted[*]} in ${packages#"$PWD"/} (once)"
  rm -rf "$packages"
  mkdir -p "$packages"
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
    --target "$packages" "${wanted[@]}" >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "pip install failed; the whole log is $log"; }
  printf '%s' "$stamp" >"$packages/stamp"
fi
export PYTHONPATH=$packages PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1
if [ -n "${OPENELM_TEST_DATA:-}" ]; then
  python3 parity/server.py target/release/openelm out/parity-server "$@"
else
  python3 parity/server.py target/release/openelm
fi
