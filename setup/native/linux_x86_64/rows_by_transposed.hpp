// Products of a few rows with a transposed matrix: activations of a few tokens times weights, and
// queries times keys. OpenBLAS first packs (copies) the matrix. This function reads it once, in
// order; up to about 6 rows take the time of reading it.

#pragma once
#include <immintrin.h>

#include <algorithm>
#include <cstddef>

#include "product.hpp"
#include "unroll.hpp"

namespace rows_by_transposed {
// 8 rows take about 0.5 of OpenBLAS's time, 16 rows 0.7, and 32 rows all of it.
constexpr int most_rows = 16;

inline bool supports(const Product& p) {
  // OpenBLAS has kernels for smaller matrices, which are as fast.
  return p.transposed && p.m >= 1 && p.m <= most_rows && p.n >= 32 && p.k >= 64;
}

// A row of C is the same for any number of rows, and a column for any number of columns.
[[gnu::target("avx2,fma")]] inline void multiply(const Product& p);

constexpr int lanes = 8;
constexpr int line = 16; // elements in a cache line
// A tile's 12 sums, 2 columns and 1 row take 15 of 16 registers.
constexpr int tile_rows = 6, tile_columns = 2;
constexpr int cached = 8192; // elements in an L1 cache of 32 KiB
constexpr int panel = 96;    // columns whose sums are kept between blocks of k
constexpr int ahead = 8;     // columns to prefetch
// One row: elements to prefetch. The order of 4 columns is not one that the processor predicts.
constexpr int row_ahead = 2560;

// R rows and C columns, and a block of `k` of their elements.
struct Tile {
  int k;
  bool first, last; // of the blocks
  const float* a;   // packed: [k / lanes, R, lanes], filled up with zeros
  const float* b;
  std::ptrdiff_t ldb;
  std::ptrdiff_t prefetch; // from `b` to the first column to prefetch
  __m256* sums;            // of the blocks before: [R, C]
  float alpha, beta;
  float* c;
  std::ptrdiff_t ldc;
};

// Adds products of `lanes` elements of each row and column.
template <int R, int C>
[[gnu::target("avx2,fma"), gnu::always_inline]] inline void add(
    __m256* sums, const float* a, __m256* columns) {
  // The empty assembly makes gcc keep an operand in a register, and not load it for each product.
  UNROLL for (int i = 0; i < C; ++i) asm("" : "+x"(columns[i]));
  UNROLL for (int r = 0; r < R; ++r) {
    __m256 row = _mm256_loadu_ps(a + r * lanes);
    asm("" : "+x"(row));
    UNROLL for (int i = 0; i < C; ++i)
      sums[r * C + i] = _mm256_fmadd_ps(row, columns[i], sums[r * C + i]);
  }
}

// The sum of each of four vectors.
[[gnu::target("avx2,fma"), gnu::always_inline]] inline __m128 totals(const __m256* vectors) {
  __m256 low = _mm256_hadd_ps(vectors[0], vectors[1]);
  __m256 pairs = _mm256_hadd_ps(low, _mm256_hadd_ps(vectors[2], vectors[3]));
  return _mm_add_ps(_mm256_castps256_ps128(pairs), _mm256_extractf128_ps(pairs, 1));
}

// Prefetches P columns into the L2 cache: the L1 cache waits for fewer lines at a time.
template <int R, int C, int P>
[[gnu::target("avx2,fma")]] void multiply_tile(const Tile& tile) {
  constexpr int fours = (R * C + 3) / 4;
  __m256 sums[4 * fours], columns[C];
  UNROLL for (auto& sum : sums) sum = _mm256_setzero_ps();
  if (!tile.first) {
    UNROLL for (int i = 0; i < R * C; ++i) sums[i] = tile.sums[i];
  }
  const float* a = tile.a;
  const float* b = tile.b;
  int left = tile.k;
  for (; left >= line; left -= line) {
    UNROLL for (int i = 0; i < P; ++i)
      _mm_prefetch(reinterpret_cast<const char*>(b + tile.prefetch + i * tile.ldb), _MM_HINT_T1);
    UNROLL for (int part = 0; part < line / lanes; ++part, a += R * lanes, b += lanes) {
      UNROLL for (int i = 0; i < C; ++i) columns[i] = _mm256_loadu_ps(b + i * tile.ldb);
      add<R, C>(sums, a, columns);
    }
  }
  for (; left > 0; left -= lanes, a += R * lanes, b += lanes) {
    __m256i each = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i used = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), each);
    UNROLL for (int i = 0; i < C; ++i) columns[i] = _mm256_maskload_ps(b + i * tile.ldb, used);
    add<R, C>(sums, a, columns);
  }
  if (!tile.last) {
    UNROLL for (int i = 0; i < R * C; ++i) tile.sums[i] = sums[i];
    return;
  }
  float products[4 * fours];
  UNROLL for (int i = 0; i < fours; ++i) _mm_storeu_ps(products + 4 * i, totals(sums + 4 * i));
  UNROLL for (int r = 0; r < R; ++r) {
    UNROLL for (int i = 0; i < C; ++i) {
      float* c = tile.c + r * tile.ldc + i;
      float product = tile.alpha * products[r * C + i];
      *c = tile.beta == 0 ? product : product + tile.beta * *c;
    }
  }
}

using Kernel = void(const Tile&);
struct Kernels {
  // By columns, and columns to prefetch.
  Kernel *one, *two, *two_prefetching_two;
};
template <int R>
constexpr Kernels kernels{multiply_tile<R, 1, 1>, multiply_tile<R, 2, 1>, multiply_tile<R, 2, 2>};
constexpr Kernels by_rows[]{kernels<2>, kernels<3>, kernels<4>, kernels<5>, kernels<6>};

// The rows, at least 2, in groups of about equal size, for a tile each.
struct Groups {
  int rows;
  int count = (rows + tile_rows - 1) / tile_rows;

  int first(int group) const { return rows * group / count; }
};

// Packs `k` elements of A's rows from `first`, group after group.
[[gnu::target("avx2,fma")]] inline void pack(const Product& p, int first, int k, float* packed) {
  Groups groups{p.m};
  for (int group = 0; group < groups.count; ++group) {
    for (int at = 0; at < k; at += lanes) {
      for (int r = groups.first(group); r < groups.first(group + 1); ++r, packed += lanes) {
        const float* row = p.a + r * p.lda + first + at;
        if (k - at >= lanes) {
          _mm256_store_ps(packed, _mm256_loadu_ps(row));
        } else {
          std::fill(std::copy_n(row, k - at, packed), packed + lanes, 0.0f);
        }
      }
    }
  }
}

inline int rounded_up(int number, int unit) { return (number + unit - 1) / unit * unit; }

// One row and C columns. The order of the additions is that of a tile.
template <int C>
[[gnu::target("avx2,fma"), gnu::always_inline]] inline void multiply_row(const Product& p,
                                                                         int column) {
  const float* b = p.b + column * p.ldb;
  __m256 sums[4];
  UNROLL for (auto& sum : sums) sum = _mm256_setzero_ps();
  int at = 0;
  for (; at + lanes <= p.k; at += lanes) {
    __m256 row = _mm256_loadu_ps(p.a + at);
    UNROLL for (int i = 0; i < C; ++i) {
      const float* from = b + i * p.ldb + at;
      _mm_prefetch(reinterpret_cast<const char*>(from + row_ahead), _MM_HINT_T0);
      sums[i] = _mm256_fmadd_ps(row, _mm256_loadu_ps(from), sums[i]);
    }
  }
  if (at < p.k) {
    __m256i each = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    __m256i used = _mm256_cmpgt_epi32(_mm256_set1_epi32(p.k - at), each);
    __m256 row = _mm256_maskload_ps(p.a + at, used);
    UNROLL for (int i = 0; i < C; ++i)
      sums[i] = _mm256_fmadd_ps(row, _mm256_maskload_ps(b + i * p.ldb + at, used), sums[i]);
  }
  float products[4];
  _mm_storeu_ps(products, totals(sums));
  UNROLL for (int i = 0; i < C; ++i) {
    float* c = p.c + column + i;
    float product = p.alpha * products[i];
    *c = p.beta == 0 ? product : product + p.beta * *c;
  }
}

// One row needs no tiles: each column is read once, from its first element to its last.
[[gnu::target("avx2,fma")]] inline void multiply_row(const Product& p) {
  int column = 0;
  for (; column + 4 <= p.n; column += 4) multiply_row<4>(p, column);
  for (; column < p.n; ++column) multiply_row<1>(p, column);
}

[[gnu::target("avx2,fma")]] inline void multiply(const Product& p) {
  if (p.m == 1) return multiply_row(p);
  alignas(64) float packed[cached];
  __m256 sums[panel * most_rows];
  Groups groups{p.m};
  // Blocks of about equal size, in which the rows of A and a tile's columns fit the L1 cache.
  int most = cached / (p.m + 2 * tile_columns) / line * line;
  int blocks = (p.k + most - 1) / most;
  int block = rounded_up((p.k + blocks - 1) / blocks, line);
  for (int first = 0; first < p.n; first += panel) {
    int end = std::min(p.n, first + panel);
    for (int at = 0; at < p.k; at += block) {
      int k = std::min(block, p.k - at);
      pack(p, at, k, packed);
      Tile tile{.k = k, .first = at == 0, .last = at + k == p.k, .a = {}, .b = {},
                .ldb = p.ldb, .prefetch = {}, .sums = sums, .alpha = p.alpha, .beta = p.beta,
                .c = {}, .ldc = p.ldc};
      for (int column = first; column < end; column += tile_columns) {
        bool two = column + 1 < end;
        tile.b = p.b + column * p.ldb + at;
        tile.a = packed;
        for (int group = 0; group < groups.count; ++group) {
          int row = groups.first(group), rows = groups.first(group + 1) - row;
          // The tiles of a column share its prefetching.
          tile.prefetch = (ahead + std::min(group, int(two))) * p.ldb;
          tile.c = p.c + row * p.ldc + column;
          auto& kernel = by_rows[rows - 2];
          (!two ? kernel.one : groups.count > 1 ? kernel.two : kernel.two_prefetching_two)(tile);
          tile.a += rows * rounded_up(k, lanes);
          tile.sums += rows * (1 + two);
        }
      }
    }
  }
}
} // namespace rows_by_transposed
