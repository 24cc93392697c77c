#!/usr/bin/env bash
# Runs a step of a workflow: run-step.sh NAME COMMAND... The output is kept in out/ci/NAME.log. If
# the command fails, the last line says what failed and how to repeat it.
set -euo pipefail
cd "$(dirname "$0")/.."
[ $# -ge 2 ] || { echo "usage: .github/run-step.sh NAME COMMAND..." >&2; exit 2; }
name=$1
shift

mkdir -p out/ci
status=0
"$@" 2>&1 | tee "out/ci/$name.log" || status=$?
[ "$status" != 0 ] || exit 0

repeat=
for variable in MLX_FROM_SOURCE FEATURES KERNELS SANITIZE OPENELM_LIBRARY_DIR RUSTUP_TOOLCHAIN; do
  [ -z "${!variable:-}" ] || repeat="$repeat$variable=$(printf '%q' "${!variable}") "
done
line="$name failed with status $status on $(uname -s) $(uname -m); repeat it in a clone: $repeat$(printf '%q ' "$@")"
line=${line% }
if [ "${GITHUB_ACTIONS:-}" = true ]; then
  printf '%s\n' "$line" >>"${GITHUB_STEP_SUMMARY:-/dev/null}"
  # An annotation: GitHub shows it on the run's page. A per cent sign starts an escape there.
  line="::error title=$name::${line//%/%25}"
fi
printf '%s\n' "$line"
exit "$status"
