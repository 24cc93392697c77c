#!/usr/bin/env bash
# Checks the package's documentation against the package built by swift/test.sh: every public symbol
# is documented and listed in API.md, the DocC catalogue has no broken links, and the examples in
# the documentation, the chat app's views and the package's code for iOS compile.
set -euo pipefail
cd "$(dirname "$0")/.."
modules=.build/debug/Modules
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work"/{all,graph,examples,stubs,ios}

if [ "$(uname -s)" = Darwin ]; then
  swift=(xcrun)
  where=(-target arm64-apple-macosx14.0 -sdk "$(xcrun --show-sdk-path)")
  stubs=()
else
  swift=()
  triple=$(swiftc -print-target-info | python3 -c 'import json, sys; print(json.load(sys.stdin)["target"]["triple"])')
  where=(-target "$triple")
  stubs=(-I "$work/stubs")
fi
ios=()
search=(-I "$modules" -I swift/Sources/COpenELMFFI)
checked=(-typecheck -swift-version 6 -warnings-as-errors "${search[@]}")

"${swift[@]}" swift-symbolgraph-extract -module-name OpenELM -minimum-access-level public \
  "${where[@]}" "${search[@]}" -output-dir "$work/all"
# The bindings' extensions and similar symbols are not part of the API.
cp "$work/all/OpenELM.symbols.json" "$work/graph/"
python3 swift/api.py "$work/graph/OpenELM.symbols.json" "$@"

"${swift[@]}" docc convert swift/Sources/OpenELM/OpenELM.docc --warnings-as-errors \
  --additional-symbol-graph-dir "$work/graph" --fallback-display-name OpenELM \
  --fallback-bundle-identifier org.openelm --output-path "$work/site" >"$work/docc.log" 2>&1 ||
  { cat "$work/docc.log" >&2; exit 1; }

# Apple's SwiftUI if available; otherwise a stub of the used names.
if [ ${#stubs[@]} -gt 0 ]; then
  for module in Accessibility UniformTypeIdentifiers SwiftUI; do
    swiftc -emit-module -swift-version 6 -warnings-as-errors -module-name "$module" "${stubs[@]}" \
      -emit-module-path "$work/stubs/$module.swiftmodule" "swift/Tests/Stubs/$module.swift"
  done
fi
"${swift[@]}" swiftc "${checked[@]}" "${stubs[@]}" -module-name Chat swift/Examples/Chat/Chat/*.swift
ios=()
# The package as for iOS, with stubs of UIKit and BackgroundTasks: the examples use both.
if [ ${#stubs[@]} -gt 0 ]; then
  ios=(-I "$work/ios")
  mapfile -t sources < <(find swift/Sources/OpenELM -name '*.swift')
  for module in UIKit BackgroundTasks; do
    swiftc -emit-module -swift-version 6 -warnings-as-errors -module-name "$module" "${ios[@]}" \
      -emit-module-path "$work/ios/$module.swiftmodule" "swift/Tests/Stubs/$module.swift"
  done
  swiftc -emit-module -swift-version 6 -warnings-as-errors "${where[@]}" "${ios[@]}" "${search[@]}" \
    -D OPENELM_SYSTEM_LIBRARY -module-name OpenELM \
    -emit-module-path "$work/ios/OpenELM.swiftmodule" "${sources[@]}" \
    .build/debug/OpenELM.build/DerivedSources/resource_bundle_accessor.swift
fi
python3 swift/snippets.py "$work/examples" README.md docs/*.md swift/README.md \
  swift/Examples/Chat/README.md swift/Sources/OpenELM/OpenELM.docc/*.md
"${swift[@]}" swiftc "${ios[@]}" "${checked[@]}" "${stubs[@]}" -module-name Examples "$work"/examples/*.swift
python3 swift/Examples/Chat/check_project.py
python3 swift/Examples/Chat/check_strings.py
