#!/usr/bin/env bash
# A wrapper for `xcrun` while MLX is built for iOS (apple/xcframework.sh adds it to PATH as
# `xcrun`): MLX's CMake compiles Metal kernels for macOS whatever the target is. Calls with a
# deployment target compile or link kernels: they run Xcode's xcrun with KERNEL_SDK and
# KERNEL_MINIMUM instead of macOS's values. All other calls are unchanged. It prints nothing,
# because MLX parses the compiler's output.
set -euo pipefail
: "${XCRUN:?names the real xcrun}" "${KERNEL_SDK:?such as iphoneos}" "${KERNEL_MINIMUM:?such as -mios-version-min=17.0}"
case " $* " in
  *' -mmacosx-version-min='*) ;;
  *) exec "$XCRUN" "$@" ;;
esac
words=("$XCRUN") before=
for word in "$@"; do
  case "$before $word" in
    *' '-mmacosx-version-min=*) word=$KERNEL_MINIMUM ;;
    '-sdk macosx' | '--sdk macosx') word=$KERNEL_SDK ;;
  esac
  words+=("$word")
  before=$word
done
exec "${words[@]}"
