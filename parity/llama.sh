#!/usr/bin/env bash
# `make parity-llama`: checks the GGUF files of `openelm convert` with ggml's Python package and
# with llama.cpp, which is built from llama-cpp-python's source distribution (about ten minutes on
# two cores, once; it needs a C++ compiler and installs to the ignored `.mlx/llama`).
set -euo pipefail
cd "$(dirname "$0")/.."
llama=$PWD/.mlx/llama
log=$PWD/.mlx/llama.log

say() { printf 'parity-llama: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ -x target/release/openelm ] || die "target/release/openelm is missing; run make build"
command -v python3 >/dev/null 2>&1 || die "python3 is missing"
stamp="$(python3 -V) gguf 0.19.0 llama-cpp-python 0.3.36"
if [ ! -f "$llama/stamp" ] || [ "$(cat "$llama/stamp")" != "$stamp" ]; then
  say "building llama.cpp in .mlx/llama (about ten minutes, once)"
  rm -rf "$llama"
  mkdir -p "$llama"
  export CMAKE_ARGS="${CMAKE_ARGS:-} -DLLAVA_BUILD=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_TOOLS=OFF -DLLAMA_BUILD_SERVER=OFF"
  export CMAKE_BUILD_PARALLEL_LEVEL=${CMAKE_BUILD_PARALLEL_LEVEL:-$(getconf _NPROCESSORS_ONLN)}
  python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore --no-cache-dir \
    --target "$llama" gguf==0.19.0 llama-cpp-python==0.3.36 >"$log" 2>&1 ||
    { tail -n 5 "$log" >&2; die "pip install failed; the whole log is $log"; }
  printf '%s' "$stamp" >"$llama/stamp"
fi
trap 'rm -rf out/parity-llama' EXIT
PYTHONPATH=$llama PYTHONNOUSERSITE=1 PYTHONDONTWRITEBYTECODE=1 python3 parity/gguf_files.py \
  target/release/openelm out/parity-llama --llama
