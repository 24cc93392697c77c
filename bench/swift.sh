#!/usr/bin/env bash
# Builds the library, the package's benchmark and the tool for release, and measures decoding
# through Swift and in the Rust core. Options are passed to swift.py.
set -euo pipefail
cd "$(dirname "$0")/.."
. swift/toolchain.sh
export OPENELM_LIBRARY_DIR=${CARGO_TARGET_DIR:-$PWD/target}/release
cargo build --quiet --release --locked --package openelm-cli --package openelm-ffi
swift build --quiet --configuration release --scratch-path .build/bench --product openelm-swift-bench
PYTHONDONTWRITEBYTECODE=1 python3 bench/swift.py "$@"
