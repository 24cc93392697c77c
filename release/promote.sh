#!/usr/bin/env bash
# Publishes the draft of a release, if the tagged commit names the draft's archive by its checksum:
# release/promote.sh VERSION https://HOST/OWNER/REPOSITORY. Nothing is built.
set -euo pipefail
cd "$(dirname "$0")/.."
archive=COpenELMFFI.xcframework.zip
say() { printf 'promote: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
[ $# = 2 ] || die "usage: release/promote.sh VERSION https://HOST/OWNER/REPOSITORY"
version=$1

value() { sed -n "s/^let $1 = \"\(.*\)\"$/\1/p" Package.swift; }
address=$2/releases/download/$version/$archive
[ "$(value releaseAddress)" = "$address" ] || die "Package.swift names '$(value releaseAddress)', expected $address; tag the commit that the draft was made from"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gh release download "$version" --pattern "$archive" --dir "$work" || die "the release $version has no $archive; push release/$version first"
found=$(python3 -c 'import hashlib, sys; print(hashlib.sha256(open(sys.argv[1], "rb").read()).hexdigest())' "$work/$archive")
[ "$found" = "$(value releaseChecksum)" ] || die "the draft's archive has the checksum $found, Package.swift names $(value releaseChecksum)"
gh release edit "$version" --draft=false
say "$version is published"
