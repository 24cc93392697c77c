#!/usr/bin/env bash
# Builds and runs the packages of docs/swift-on-linux.md, which depend on this one by path and by
# URL and version. Their environment is swift/environment.sh's, and their text the tool's.
set -euo pipefail
cd "$(dirname "$0")/.."
if [ "$(uname -s)" != Linux ]; then
  echo "test-packages: skipped, it is for Linux" >&2
  exit 0
fi
: "${OPENELM_TOOL:?the program openelm}"
root=$PWD
# The folder of the package by path is kept, so that a second run is short.
work=$root/.build/packages
mkdir -p "$work"
rm -rf "$work/MyApp/Sources" "$work/MyServer" "$work/openelm.git" "$work/cache" "$work/security"
ln -sfn "$root" "$work/openelm"

# The documentation's manifests and program.
python3 - "$work" <<'PYTHON'
import re, sys
from pathlib import Path

work = Path(sys.argv[1])
text = Path("docs/swift-on-linux.md").read_text()
manifests = re.findall(r"^```text\n(// swift-tools-version.*?)^```$", text, re.M | re.S)
program = re.search(r"^```swift\n(import .*?)^```$", text, re.M | re.S)[1]
by_path, by_version = manifests
by_version = by_version.replace('url: "URL"', f'url: "file://{work}/openelm.git"')
for name, manifest in ("MyApp", by_path), ("MyServer", by_version):
    sources = work / name / "Sources" / name
    sources.mkdir(parents=True)
    (work / name / "Package.swift").write_text(manifest)
    (sources / "main.swift").write_text(program)
PYTHON

# A repository with the files of the package as they are now, and a tag.
repository() {
  git --git-dir "$work/openelm.git" --work-tree "$root" -c user.name=test \
    -c user.email=test@localhost -c commit.gpgsign=false "$@"
}
git init --quiet --bare "$work/openelm.git"
repository add Package.swift swift
repository commit --quiet --message package
repository tag 0.1.0

lines=$(swift/environment.sh)
unset OPENELM_LIBRARY_DIR LIBRARY_PATH LD_LIBRARY_PATH
eval "$lines"
expected=$("$OPENELM_TOOL" generate --model examples/tales --prompt "Once upon a time" \
  --max-tokens 24 2>/dev/null)
for name in MyApp MyServer; do
  swift build --package-path "$work/$name" --cache-path "$work/cache" \
    --security-path "$work/security" --disable-index-store -debug-info-format none \
    >"$work/log" 2>&1 || { tail -n 20 "$work/log" >&2; exit 1; }
  found=$("$work/$name/.build/debug/$name" examples/tales)
  if [ -z "$found" ] || [ "$found" != "$expected" ]; then
    printf '%s: expected\n%s\nfound\n%s\n' "$name" "$expected" "$found" >&2
    exit 1
  fi
  echo "test-packages: $name has the tool's text"
done
