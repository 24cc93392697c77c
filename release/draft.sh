#!/usr/bin/env bash
# Makes the draft of a release from out/xcframework: writes the archive's address and checksum into
# Package.swift, commits it with the GPU kernels, pushes the branch, and uploads the files.
#
#   release/draft.sh https://HOST/OWNER/REPOSITORY [--dry-run]
#
# --dry-run leaves the commit here and lists the files; nothing leaves this machine.
set -euo pipefail
cd "$(dirname "$0")/.."
folder=out/xcframework
archive=COpenELMFFI.xcframework.zip
kernels=swift/Sources/OpenELM/Resources/Kernels
say() { printf 'draft: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
usage="usage: release/draft.sh https://HOST/OWNER/REPOSITORY [--dry-run]"

repository=${1:-}
case $repository in https://*/*/*) ;; *) die "expected the repository's address, found '$repository'; $usage" ;; esac
dry=
case ${2:-} in
  '') ;;
  --dry-run) dry=1 ;;
  *) die "unexpected $2; $usage" ;;
esac

[ -f "$folder/release.json" ] || die "$folder/release.json is missing; run make xcframework"
field() { python3 -c 'import functools, json, sys; print(functools.reduce(dict.get, sys.argv[2].split("."), json.load(open(sys.argv[1]))))' "$folder/release.json" "$1"; }
version=$(sed -n '/^\[workspace.package\]/,/^\[/s/^version = "\(.*\)"/\1/p' Cargo.toml)
[ "$(field version)" = "$version" ] || die "$folder is of version $(field version), Cargo.toml says $version"
[ "$(field commit)" = "$(git rev-parse HEAD)" ] || die "$folder was built from commit $(field commit), this is $(git rev-parse HEAD)"
git diff --quiet HEAD || die "there are changes that are not committed"
# The section of the changelog, without its heading.
awk -v version="$version" '/^## / { inside = $2 == version; next } inside' CHANGELOG.md >"$folder/notes.md"
grep -q '[^[:space:]]' "$folder/notes.md" || die "CHANGELOG.md has no section $version"
if [ -z "$dry" ]; then
  [ "$(git branch --show-current)" = "release/$version" ] || die "expected the branch release/$version, this is $(git branch --show-current)"
  ! grep -q "^## $version .*unreleased" CHANGELOG.md || die "CHANGELOG.md calls $version unreleased"
fi

python3 -B release/release.py pin "$repository/releases/download/$version/$archive" "$folder"
find "$kernels" -name '*.metallib' -delete
cp "$folder"/kernels/*.metallib "$kernels/"
# Ignored elsewhere: only a release carries them.
git add --force -- Package.swift "$kernels"
git -c user.name="${GIT_AUTHOR_NAME:-release}" -c user.email="${GIT_AUTHOR_EMAIL:-release@localhost}" \
  commit --quiet --message "Release $version"
printf '%s  %s\n' "$(field archive.sha256)" "$archive" >"$folder/$archive.sha256"
tar -C "$folder" -czf "$folder/licences.tar.gz" licences
files=("$folder/$archive" "$folder/$archive.sha256" "$folder/release.json" "$folder/licences.tar.gz")

if [ -n "$dry" ]; then
  say "dry run: $version is committed here as $(git rev-parse --short HEAD); the draft would have:"
  printf '%s\n' "${files[@]}"
  exit 0
fi
git push origin "HEAD:refs/heads/release/$version"
# A second push to the branch replaces its draft, and never a published release.
if published=$(gh release view "$version" --json isDraft --jq '.isDraft | not' 2>/dev/null); then
  [ "$published" = false ] || die "$version is published already"
  gh release delete "$version" --yes
fi
gh release create "$version" --draft --target "$(git rev-parse HEAD)" --title "OpenELM $version" \
  --notes-file "$folder/notes.md" "${files[@]}"
say "the draft $version is made; the tag $version on $(git rev-parse --short HEAD) publishes it"
