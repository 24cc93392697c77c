# Sourced from the repository root: adds a Swift toolchain to PATH. On Debian it is installed by
# setup/setup-swift.sh; on macOS it is Xcode's, and on other Linux systems an existing `swift`.
# shellcheck shell=bash
if [ "$(uname -s)" = Linux ] && ! command -v apt-get >/dev/null; then
  command -v swift >/dev/null || { echo "swift: install Swift 6.0 or newer (swift.org)" >&2; exit 1; }
else
  setup/setup-swift.sh
  [ "$(uname -s)" = Darwin ] || export PATH="$PWD/.mlx/swift/root/usr/libexec/swift/bin:$PATH"
fi
