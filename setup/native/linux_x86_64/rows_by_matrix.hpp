// Products of a few rows with a narrow matrix: weights of attention times values, for heads that
// share them, over a long context. OpenBLAS first packs (copies) the matrix. This function reads it
// once, in order.

#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstddef>

#include "product.hpp"
#include "unroll.hpp"

namespace rows_by_matrix {
constexpr int most_rows = 4;
constexpr int widest = 256;

inline bool supports(const Product& p) {
  return !p.transposed && p.m >= 2 && p.m <= most_rows && p.n >= 1 && p.n <= widest &&
         p.n % 32 == 0 && p.k >= 1 && p.beta == 0;
}

inline void multiply(const Product& p);

// Processes blocks of B's rows that fit the L1 cache, 32 columns at a time.
template <int R>
[[gnu::target("avx2,fma")]] void multiply_rows(const Product& p) {
  constexpr int rows = 64;
  for (int first = 0; first < p.k; first += rows) {
    int end = std::min(p.k, first + rows);
    for (int column = 0; column < p.n; column += 32) {
      __m256 sums[R][4];
      UNROLL for (int r = 0; r < R; ++r) {
        const float* c = p.c + r * p.ldc + column;
        UNROLL for (int i = 0; i < 4; ++i)
          sums[r][i] = first == 0 ? _mm256_setzero_ps() : _mm256_loadu_ps(c + 8 * i);
      }
      for (int at = first; at < end; ++at) {
        const float* row = p.b + at * p.ldb + column;
        const float* next = row + rows * p.ldb;
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(next + 16), _MM_HINT_T0);
        UNROLL for (int r = 0; r < R; ++r) {
          __m256 left = _mm256_broadcast_ss(p.a + r * p.lda + at);
          UNROLL for (int i = 0; i < 4; ++i)
            sums[r][i] = _mm256_fmadd_ps(left, _mm256_loadu_ps(row + 8 * i), sums[r][i]);
        }
      }
      __m256 factor = _mm256_set1_ps(end == p.k ? p.alpha : 1);
      UNROLL for (int r = 0; r < R; ++r) {
        float* c = p.c + r * p.ldc + column;
        UNROLL for (int i = 0; i < 4; ++i)
          _mm256_storeu_ps(c + 8 * i, _mm256_mul_ps(factor, sums[r][i]));
      }
    }
  }
}

inline void multiply(const Product& p) {
  using Kernel = void(const Product&);
  constexpr Kernel* by_rows[]{multiply_rows<2>, multiply_rows<3>, multiply_rows<4>};
  by_rows[p.m - 2](p);
}
} // namespace rows_by_matrix
