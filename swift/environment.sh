#!/usr/bin/env bash
# Prints the lines for a shell on Linux in which packages that depend on this one build and run:
# the toolchain of setup/setup-swift.sh, if it is installed, and the folder of the library.
set -euo pipefail
cd "$(dirname "$0")/.."
[ "$(uname -s)" = Linux ] || exit 0
bin=$PWD/.mlx/swift/root/usr/libexec/swift/bin
library=${OPENELM_LIBRARY_DIR:-${CARGO_TARGET_DIR:-$PWD/target}/debug}
[ ! -d "$bin" ] || echo "export PATH=\"$bin:\$PATH\""
cat <<LINES
export OPENELM_LIBRARY_DIR="$library"
export LIBRARY_PATH="\$OPENELM_LIBRARY_DIR\${LIBRARY_PATH:+:\$LIBRARY_PATH}"
export LD_LIBRARY_PATH="\$OPENELM_LIBRARY_DIR\${LD_LIBRARY_PATH:+:\$LD_LIBRARY_PATH}"
LINES
