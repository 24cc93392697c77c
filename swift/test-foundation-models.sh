#!/usr/bin/env bash
# Tests the executor for FoundationModels of OS 27 with the real library, and compiles the
# documentation's examples of it. Linux has no FoundationModels, so the package's sources are built
# beside a stub of it, in .build.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(uname -s)" = Darwin ]; then
  echo "test-foundation-models: skipped, the stub is for Linux; swift build uses the SDK's module" >&2
  exit 0
fi
: "${OPENELM_LIBRARY_DIR:?the folder of libopenelm_ffi.so}"
sources=$PWD/swift/Sources
tests=$PWD/swift/Tests/FoundationModels
package=.build/foundation-models
mkdir -p "$package"
for link in "$sources"/{COpenELMFFI,OpenELMBindings,OpenELM} "$tests"/{Package.swift,Stub,Tests}; do
  ln -sfn "$link" "$package/"
done
OPENELM_MODEL=$PWD/examples/tales swift test --package-path "$package" --disable-xctest "$@"

# The documentation's examples that import FoundationModels.
examples=$(mktemp -d)
trap 'rm -rf "$examples"' EXIT
python3 swift/snippets.py --foundation-models "$examples" README.md docs/*.md swift/README.md \
  swift/Sources/OpenELM/OpenELM.docc/*.md
swiftc -typecheck -swift-version 6 -warnings-as-errors -I "$package/.build/debug/Modules" \
  -I swift/Sources/COpenELMFFI -module-name Examples "$examples"/*.swift
