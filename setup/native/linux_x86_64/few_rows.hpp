// Products of a few rows with a matrix, on all threads: in decoding, for one position of each of a
// few sequences, or for a few positions of one.

#pragma once
#include <algorithm>
#include <array>
#include <cstddef>

#include "product.hpp"
#include "rows_by_matrix.hpp"
#include "rows_by_transposed.hpp"
#include "threads.hpp"

namespace few_rows {
inline const bool has_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");

// The first of `all` rows or columns in part `i` of `parts`.
inline int first(int i, int all, int parts) { return int(std::ptrdiff_t(all) * i / parts); }

// The number of parts of a product, if each has enough elements of B for the work of a thread.
inline int parts(const Product& p, int most) {
  constexpr std::ptrdiff_t least = 16384;
  return int(std::clamp<std::ptrdiff_t>(std::ptrdiff_t(p.n) * p.k / least, 1, most));
}

// Splits the columns of B^T, the rows of B.
inline void by_transposed(const Product& p) {
  int count = parts(p, std::max(1, p.n / 32));
  run_pieces(count, [&](int i) {
    int start = first(i, p.n, count);
    Product part = p;
    part.n = first(i + 1, p.n, count) - start;
    part.b += start * p.ldb;
    part.c += start;
    rows_by_transposed::multiply(part);
  });
}

// Splits the rows of B, the values of a position each, and adds the results. Neither the parts nor
// the result depend on the number of threads.
inline void by_matrix(const Product& p) {
  using namespace rows_by_matrix;
  constexpr int most_parts = 8;
  int count = parts(p, most_parts);
  if (count == 1) return multiply(p);
  std::array<std::array<float, most_rows * widest>, most_parts> sums;
  run_pieces(count, [&](int i) {
    int start = first(i, p.k, count);
    Product part = p;
    part.k = first(i + 1, p.k, count) - start;
    part.a += start;
    part.b += start * p.ldb;
    part.c = sums[i].data();
    part.ldc = p.n;
    multiply(part);
  });
  for (int row = 0; row < p.m; ++row) {
    for (int column = 0; column < p.n; ++column) {
      float sum = 0;
      for (int i = 0; i < count; ++i) sum += sums[i][row * p.n + column];
      p.c[row * p.ldc + column] = sum;
    }
  }
}

// Returns false for a product that OpenBLAS multiplies as fast, or that is not supported.
inline bool multiply(const Product& p) {
  if (!has_fma) return false;
  if (rows_by_transposed::supports(p)) {
    by_transposed(p);
  } else if (rows_by_matrix::supports(p)) {
    by_matrix(p);
  } else {
    return false;
  }
  return true;
}
} // namespace few_rows
