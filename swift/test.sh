#!/usr/bin/env bash
# Tests the Swift package with the real library: current declarations and API.md, lint, build,
# tests, documentation. SANITIZE=1 repeats the tests under the thread sanitizer. --write (`make
# bindings`) updates the declarations and API.md.
set -euo pipefail
cd "$(dirname "$0")/.."
. swift/toolchain.sh
target=${CARGO_TARGET_DIR:-$PWD/target}
export OPENELM_LIBRARY_DIR=$target/debug
library=$target/debug/libopenelm_ffi.so
[ "$(uname -s)" != Darwin ] || library=${library%.so}.dylib

# The options of `make test-rust`, so that nothing is built twice.
# shellcheck disable=SC2086 # FEATURES is none or one word, as in the Makefile
cargo build --quiet --locked --workspace --exclude mlx-c-bindings --features openelm-ffi/inject-faults ${FEATURES:-}
export OPENELM_TOOL=$target/debug/openelm
generate() { "$target/debug/uniffi-bindgen" --config uniffi.toml "$library" "$@"; }
fresh=$(mktemp -d)
trap 'rm -rf "$fresh"' EXIT
generate "$fresh" --swift-sources
generate "$fresh" --headers
generate "$fresh" --modulemap --module-name COpenELMFFI --modulemap-filename module.modulemap
if [ "${1:-}" = --write ]; then
  cp "$fresh/OpenELMBindings.swift" swift/Sources/OpenELMBindings/
  cp "$fresh/COpenELMFFI.h" "$fresh/module.modulemap" swift/Sources/COpenELMFFI/
fi
for file in OpenELMBindings/OpenELMBindings.swift COpenELMFFI/COpenELMFFI.h COpenELMFFI/module.modulemap; do
  cmp "$fresh/$(basename "$file")" "swift/Sources/$file" ||
    { echo "swift/Sources/$file is not current: run make bindings" >&2; exit 1; }
done

swift format lint --strict --recursive Package.swift swift/Sources/OpenELM swift/Tests \
  swift/Examples swift/Benchmarks
# Injected panics would print backtraces.
unset RUST_BACKTRACE
# One at a time: an injected failure of MLX would hit the texts of other tests.
swift test --no-parallel --disable-xctest -Xswiftc -warnings-as-errors
swift/check-docs.sh "$@"
swift/test-foundation-models.sh
swift/test-packages.sh
# Data races: repeats the tests with the thread sanitizer, which instruments Swift's side of the
# calls.
if [ "${SANITIZE:-0}" = 1 ]; then
  swift test --no-parallel --disable-xctest --sanitize=thread --scratch-path .build/sanitized
fi
