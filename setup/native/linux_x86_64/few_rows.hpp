// Products of a few rows with a narrow matrix: attention of one position, for heads that share keys
// and values, over a long context. OpenBLAS first packs (copies) the keys or values. These
// functions read them once, in order, and take 50 to 80 % of its time.

#pragma once
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cstddef>

#include "threads.hpp"

namespace few_rows {
constexpr int most_rows = 4;
constexpr int widest = 256;

// C[R,n] = alpha * A[R,k] * B[n,k]^T; k is a multiple of 16.
template <int R>
[[gnu::target("avx2,fma")]] void rows_by_transposed(
    int n, int k, float alpha, const float* a, int lda, const float* b, int ldb, float* c, int ldc) {
  constexpr std::ptrdiff_t ahead = 8; // rows to prefetch
  for (int column = 0; column < n; ++column) {
    const float* row = b + std::ptrdiff_t(column) * ldb;
    __m256 sums[R];
    for (auto& sum : sums) sum = _mm256_setzero_ps();
    for (int i = 0; i < k; i += 16) {
      _mm_prefetch(reinterpret_cast<const char*>(row + i + ahead * ldb), _MM_HINT_T0);
      __m256 low = _mm256_loadu_ps(row + i), high = _mm256_loadu_ps(row + i + 8);
      for (int r = 0; r < R; ++r) {
        const float* left = a + std::ptrdiff_t(r) * lda + i;
        sums[r] = _mm256_fmadd_ps(low, _mm256_loadu_ps(left), sums[r]);
        sums[r] = _mm256_fmadd_ps(high, _mm256_loadu_ps(left + 8), sums[r]);
      }
    }
    for (int r = 0; r < R; ++r) {
      __m128 sum = _mm_add_ps(_mm256_castps256_ps128(sums[r]), _mm256_extractf128_ps(sums[r], 1));
      sum = _mm_add_ps(sum, _mm_movehl_ps(sum, sum));
      sum = _mm_add_ss(sum, _mm_movehdup_ps(sum));
      c[std::ptrdiff_t(r) * ldc + column] = alpha * _mm_cvtss_f32(sum);
    }
  }
}

// C[R,n] = alpha * A[R,k] * B[k,n]; n is a multiple of 32. Processes blocks of B's rows that fit
// the L1 cache, 32 columns at a time.
template <int R>
[[gnu::target("avx2,fma")]] void rows_by_matrix(
    int n, int k, float alpha, const float* a, int lda, const float* b, int ldb, float* c, int ldc) {
  constexpr int rows = 64;
  for (int first = 0; first < k; first += rows) {
    int end = std::min(k, first + rows);
    for (int column = 0; column < n; column += 32) {
      __m256 sums[R][4];
      for (int r = 0; r < R; ++r)
        for (int i = 0; i < 4; ++i)
          sums[r][i] = first == 0 ? _mm256_setzero_ps()
                                  : _mm256_loadu_ps(c + std::ptrdiff_t(r) * ldc + column + 8 * i);
      for (int at = first; at < end; ++at) {
        const float* row = b + std::ptrdiff_t(at) * ldb + column;
        const float* next = row + std::ptrdiff_t(rows) * ldb;
        _mm_prefetch(reinterpret_cast<const char*>(next), _MM_HINT_T0);
        _mm_prefetch(reinterpret_cast<const char*>(next + 16), _MM_HINT_T0);
        __m256 right[4];
        for (int i = 0; i < 4; ++i) right[i] = _mm256_loadu_ps(row + 8 * i);
        for (int r = 0; r < R; ++r) {
          __m256 left = _mm256_broadcast_ss(a + std::ptrdiff_t(r) * lda + at);
          for (int i = 0; i < 4; ++i) sums[r][i] = _mm256_fmadd_ps(left, right[i], sums[r][i]);
        }
      }
      __m256 factor = _mm256_set1_ps(end == k ? alpha : 1);
      for (int r = 0; r < R; ++r)
        for (int i = 0; i < 4; ++i)
          _mm256_storeu_ps(
              c + std::ptrdiff_t(r) * ldc + column + 8 * i, _mm256_mul_ps(factor, sums[r][i]));
    }
  }
}

using RowsKernel = void(int, int, float, const float*, int, const float*, int, float*, int);
constexpr std::array<RowsKernel*, most_rows + 1> by_transposed{
    nullptr, nullptr, rows_by_transposed<2>, rows_by_transposed<3>, rows_by_transposed<4>};
constexpr std::array<RowsKernel*, most_rows + 1> by_matrix{
    nullptr, nullptr, rows_by_matrix<2>, rows_by_matrix<3>, rows_by_matrix<4>};
inline const bool has_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");

// A product in row-major order, C[m,n] = alpha * A[m,k] * op(B)[k,n].
struct Product {
  bool transposed; // B is [n,k]
  int m, n, k;
  float alpha;
  const float* a;
  int lda;
  const float* b;
  int ldb;
  float* c;
  int ldc;
};

inline RowsKernel* kernel(const Product& p) {
  if (!has_fma || p.m < 2 || p.m > most_rows || p.n < 1 || p.k < 1) return nullptr;
  if (p.transposed) return p.k <= widest && p.k % 16 == 0 ? by_transposed[p.m] : nullptr;
  return p.n <= widest && p.n % 32 == 0 ? by_matrix[p.m] : nullptr;
}

// Splits B's rows, the keys or values of one position each, between `threads`, if there are threads
// and enough rows. Returns false for a product of another shape.
inline bool multiply(const Product& p, Threads* threads) {
  constexpr std::ptrdiff_t least = 16384; // elements of B per thread, at least
  constexpr int most_parts = 8;
  auto* rows_by = kernel(p);
  if (rows_by == nullptr) return false;
  std::ptrdiff_t rows = p.transposed ? p.n : p.k;
  int parts = threads == nullptr ? 1 : std::min(threads->count(), most_parts);
  parts = int(std::min<std::ptrdiff_t>(parts, std::ptrdiff_t(p.n) * p.k / least));
  if (parts < 2) {
    rows_by(p.n, p.k, p.alpha, p.a, p.lda, p.b, p.ldb, p.c, p.ldc);
    return true;
  }
  auto first = [&](int i) { return rows * i / parts; };
  auto count = [&](int i) { return int(first(i + 1) - first(i)); };
  if (p.transposed) {
    threads->run(parts, [&](int i) {
      auto* b = p.b + first(i) * p.ldb;
      rows_by(count(i), p.k, p.alpha, p.a, p.lda, b, p.ldb, p.c + first(i), p.ldc);
    });
    return true;
  }
  std::array<std::array<float, most_rows * widest>, most_parts> sums;
  threads->run(parts, [&](int i) {
    auto* b = p.b + first(i) * p.ldb;
    rows_by(p.n, count(i), p.alpha, p.a + first(i), p.lda, b, p.ldb, sums[i].data(), p.n);
  });
  for (int row = 0; row < p.m; ++row) {
    for (int column = 0; column < p.n; ++column) {
      float sum = 0;
      for (int i = 0; i < parts; ++i) sum += sums[i][row * p.n + column];
      p.c[std::ptrdiff_t(row) * p.ldc + column] = sum;
    }
  }
  return true;
}
} // namespace few_rows
