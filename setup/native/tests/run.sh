#!/usr/bin/env bash
# Tests the native kernels (`make test-native`): against plain loops, with the sanitizers for
# addresses, undefined behaviour and threads, for AVX2 and for AVX-512 where the processor has it,
# and that 1, 2 and 4 threads give the same bytes.
set -euo pipefail
cd "$(dirname "$0")/../../.."
[ "$(uname -s)-$(uname -m)" = Linux-x86_64 ] || {
  echo "the native kernels are for Linux on x86-64: nothing to test" >&2
  exit 0
}
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
blas=$PWD/.mlx/prefix/scipy_openblas32/lib
native=setup/native/linux_x86_64

# Builds the program NAME with the sanitizers.
build() {
  "${CXX:-c++}" -std=c++20 -O1 -g -w -fno-sanitize-recover=all -fsanitize="$2" \
    setup/native/tests/kernels.cpp "$native/kernels.cpp" "$native/kernels_avx2.cpp" \
    "$native/kernels_avx512.cpp" "$native/blas.cpp" -o "$folder/$1" \
    -L"$blas" -lscipy_openblas -Wl,-rpath,"$blas"
}
build addresses address,undefined &
build threads thread
wait $!

for kernels in avx512 avx2; do
  OPENELM_KERNELS=$kernels "$folder/addresses"
  results=
  for threads in 1 2 4; do
    found=$(OPENELM_KERNELS=$kernels OPENBLAS_NUM_THREADS=$threads "$folder/threads" hash)
    [ -z "$results" ] || [ "$found" = "$results" ] || {
      echo "$kernels: $threads threads give other bytes: $found, not $results" >&2
      exit 1
    }
    results=$found
  done
done
