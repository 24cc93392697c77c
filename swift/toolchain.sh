# Sourced in the repository's root: puts a Swift toolchain into PATH. On Debian that is the one of
# setup/setup-swift.sh; on a Mac it is Xcode's, and on another Linux whatever `swift` there is.
# shellcheck shell=bash
if [ "$(uname -s)" = Linux ] && ! command -v apt-get >/dev/null; then
  command -v swift >/dev/null || { echo "swift: install Swift 6.0 or newer (swift.org)" >&2; exit 1; }
else
  setup/setup-swift.sh
  [ "$(uname -s)" = Darwin ] || export PATH="$PWD/.mlx/swift/root/usr/libexec/swift/bin:$PATH"
fi
