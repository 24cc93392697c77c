#!/usr/bin/env bash
# Builds the Swift package for iOS and for the iOS simulator with Xcode, from what `make xcframework`
# made. Logs and products are in out/ios.
set -euo pipefail
cd "$(dirname "$0")/.."
say() { printf 'ios: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(uname -s)" = Darwin ] || die "this needs Xcode on a Mac, and this is $(uname -s)"
[ -d out/xcframework/COpenELMFFI.xcframework ] || die "out/xcframework is missing; run make xcframework"
cp out/xcframework/kernels/*.metallib swift/Sources/OpenELM/Resources/Kernels/
unset OPENELM_LIBRARY_DIR
mkdir -p out/ios
for platform in iOS 'iOS Simulator'; do
  log=out/ios/${platform// /-}.log
  say "building for $platform"
  xcodebuild build -scheme OpenELM -destination "generic/platform=$platform" -derivedDataPath out/ios/derived \
    ARCHS=arm64 CODE_SIGNING_ALLOWED=NO >"$log" 2>&1 ||
    { tail -n 40 "$log"; die "building for $platform failed; the whole log is $log"; }
done
say "both build"
