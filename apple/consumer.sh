#!/usr/bin/env bash
# Builds a package that depends on this one, as an app's package does, in out/consumer:
#
#   apple/consumer.sh                        on this clone, with what `make xcframework` made
#   apple/consumer.sh REPOSITORY VERSION     on a release, by its address
#
# apple/consumer-run.sh then generates text with it. On Linux the library is target/debug's.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD
folder=$root/out/consumer
say() { printf 'consumer: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

. swift/toolchain.sh
case $# in
  0)
    what="this clone" identity=OpenELM
    dependency=".package(name: \"OpenELM\", path: \"$root\")"
    if [ "$(uname -s)" = Darwin ] && [ -z "${OPENELM_LIBRARY_DIR:-}" ]; then
      [ -d out/xcframework/COpenELMFFI.xcframework ] || die "out/xcframework is missing; run make xcframework"
      # An XCFramework that was downloaded, not made here, comes without the package's copy.
      cp out/xcframework/kernels/*.metallib swift/Sources/OpenELM/Resources/Kernels/
    fi
    ;;
  2)
    what="$2 of $1" identity=$(basename "$1" .git)
    dependency=".package(url: \"$1\", exact: \"$2\")"
    ;;
  *) die "usage: apple/consumer.sh [REPOSITORY VERSION]" ;;
esac

rm -rf "$folder"
mkdir -p "$folder/Sources/consumer"
cat >"$folder/Package.swift" <<SWIFT
// swift-tools-version: 6.0
import PackageDescription

let package = Package(
    name: "consumer",
    platforms: [.macOS(.v14)],
    dependencies: [$dependency],
    targets: [
        .executableTarget(
            name: "consumer", dependencies: [.product(name: "OpenELM", package: "$identity")])
    ]
)
SWIFT
cat >"$folder/Sources/consumer/main.swift" <<'SWIFT'
import Foundation
import OpenELM

let model = try await LanguageModel(folder: URL(filePath: CommandLine.arguments[1]))
let options = GenerationOptions(maximumResponseTokens: 40)
print(try await model.generate("Once upon a time", options: options))
SWIFT
swift build --package-path "$folder"
say "a package that depends on $what builds; apple/consumer-run.sh runs it"
