#!/usr/bin/env bash
# Stands in for `xcrun` while MLX is built for iOS (apple/xcframework.sh puts it into the PATH under that name):
# MLX' CMake compiles Metal kernels for macOS whatever it builds for. Where a system's oldest version is
# named, kernels are compiled or linked, and the words go on to Xcode's xcrun with KERNEL_SDK and
# KERNEL_MINIMUM in the place of macOS'; the rest goes on as it is. It prints nothing: MLX reads what
# the compiler says.
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
