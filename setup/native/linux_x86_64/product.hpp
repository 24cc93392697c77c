// A product of matrices, as `cblas_sgemm` describes it.
#pragma once
#include <cstddef>

// C[m,n] = alpha * A[m,k] * op(B)[k,n] + beta * C, in row-major order.
struct Product {
  bool transposed; // B is [n,k]
  int m, n, k;
  float alpha;
  const float* a;
  std::ptrdiff_t lda;
  const float* b;
  std::ptrdiff_t ldb;
  float beta;
  float* c;
  std::ptrdiff_t ldc;
};
