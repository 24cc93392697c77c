#!/usr/bin/env bash
# Builds the chat app for the iOS simulator, starts it there, and takes screenshots of its screens:
# out/chat/*.png. The model is the sample in the app's bundle. Needs Xcode and what `make xcframework`
# made.
set -euo pipefail
cd "$(dirname "$0")/.."
out=$PWD/out/chat
app=org.openelm.chat
say() { printf 'chat-simulator: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(uname -s)" = Darwin ] || die "this needs Xcode on a Mac, and this is $(uname -s)"
[ -d out/xcframework/COpenELMFFI.xcframework ] || die "out/xcframework is missing; run make xcframework"
cp out/xcframework/kernels/*.metallib swift/Sources/OpenELM/Resources/Kernels/
unset OPENELM_LIBRARY_DIR
mkdir -p "$out"

say "building"
xcodebuild build -project swift/Examples/Chat/Chat.xcodeproj -scheme Chat -destination 'generic/platform=iOS Simulator' \
  -configuration Debug -derivedDataPath "$out/derived" ARCHS=arm64 CODE_SIGN_IDENTITY=- >"$out/build.log" 2>&1 ||
  { tail -n 40 "$out/build.log"; die "the app does not build; the whole log is $out/build.log"; }

# The newest iOS that this Xcode has a phone for.
device=$(xcrun simctl list devices available --json | python3 -c '
import json, re, sys
found = []
for runtime, devices in json.load(sys.stdin)["devices"].items():
    version = re.search(r"\.iOS-(\d+)-(\d+)", runtime)
    for device in devices:
        if version and device["name"].startswith("iPhone"):
            found.append((tuple(map(int, version.groups())), device["udid"]))
print(max(found)[1] if found else "")')
[ -n "$device" ] || die "Xcode has no simulated iPhone; xcodebuild -downloadPlatform iOS fetches one"

say "starting the simulator $device"
xcrun simctl bootstatus "$device" -b
trap 'xcrun simctl shutdown "$device"' EXIT
xcrun simctl install "$device" "$out/derived/Build/Products/Debug-iphonesimulator/Chat.app"

# launch ARGUMENT ...: starts the app again with the arguments of LaunchArguments.swift.
launch() {
  xcrun simctl launch --terminate-running-process --stdout="$out/stdout.log" --stderr="$out/stderr.log" "$device" "$app" "$@"
}

# screenshot NAME: the app has to be running.
screenshot() {
  sleep 10
  xcrun simctl io "$device" screenshot "$out/$1.png"
  # Not -q: launchctl would fail when grep closes the pipe.
  xcrun simctl spawn "$device" launchctl list | grep "UIKitApplication:$app" >/dev/null ||
    { cat "$out/stderr.log" || true; die "the app has ended by the screenshot $1; its output is $out/stderr.log"; }
}
launch --ask 'Once upon a time'
screenshot conversation
for name in models training settings; do
  launch --show "$name"
  screenshot "$name"
done
xcrun simctl ui "$device" appearance dark
launch --ask 'Once upon a time'
screenshot dark
xcrun simctl ui "$device" content_size accessibility-large
screenshot large-text
say "the app runs; screenshots are in out/chat"
