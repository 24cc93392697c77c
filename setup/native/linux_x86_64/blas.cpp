// BLAS functions. The MLX wheel contains the reference BLAS, about 30 times slower than OpenBLAS.
// These definitions come first in the loader's search order and replace it. OpenBLAS multiplies on
// one thread: its own threads wait for each other, and on a busy machine for those that the system
// does not run.

#include "blas.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdlib>
#include <system_error>

#include "few_rows.hpp"
#include "product.hpp"
#include "threads.hpp"

extern "C" {
enum Order { RowMajor = 101, ColMajor = 102 };
enum Transpose { NoTrans = 111, Trans = 112 };

void scipy_cblas_sgemm(int, int, int, int, int, int, float, const float*, int, const float*, int,
                       float, float*, int);
void scipy_cblas_dgemm(int, int, int, int, int, int, double, const double*, int, const double*, int,
                       double, double*, int);
void scipy_cblas_sgemv(int, int, int, int, float, const float*, int, const float*, int, float,
                       float*, int);
int scipy_openblas_get_num_threads();
void scipy_openblas_set_num_threads(int);
}

namespace {
// OPENBLAS_NUM_THREADS, or the number of processors.
int thread_count() {
  constexpr int most = 64;
  int count = scipy_openblas_get_num_threads();
  if (const char* variable = std::getenv("OPENBLAS_NUM_THREADS")) {
    if (int chosen = std::atoi(variable); chosen > 0) count = chosen;
  }
  return std::min(count, most);
}
} // namespace

Threads* threads() {
  static Threads* const all = []() -> Threads* {
    int count = thread_count();
    scipy_openblas_set_num_threads(1);
    if (count < 2) return nullptr;
    try {
      return new Threads(count);
    } catch (const std::system_error&) {
      return nullptr;
    }
  }();
  return all;
}

void multiply_on_this_thread(int m, int n, int k, const float* a, const float* b, float* c,
                             int stride) {
  scipy_cblas_sgemm(RowMajor, NoTrans, Trans, m, n, k, 1, a, k, b, k, 0, c, stride);
}

namespace {
// The number of rows or columns of a piece, enough for the work of a thread. Each piece packs the
// whole other matrix. The bytes of the result do not depend on the number of threads.
constexpr int piece_size(int size, int other, int k) {
  constexpr std::ptrdiff_t least = 1 << 21; // multiplications
  std::ptrdiff_t of_one = std::ptrdiff_t(other) * k;
  std::ptrdiff_t rows = std::max<std::ptrdiff_t>(64, (least + of_one - 1) / of_one);
  rows = std::max<std::ptrdiff_t>(rows, (size + 7) / 8);
  return int(std::min<std::ptrdiff_t>(size, (rows + 15) / 16 * 16));
}
} // namespace

extern "C" {
// C[m,n] = alpha * op(A)[m,k] * op(B)[k,n] + beta * C
void cblas_sgemm(int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
                 const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  threads(); // limits OpenBLAS to one thread
  if (order == RowMajor && trans_a == NoTrans) {
    Product product{trans_b != NoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc};
    if (few_rows::multiply(product)) return;
  }
  // OpenBLAS packs all of B even for one row of A. A product with one row or column is a
  // matrix-vector product, for which sgemv reads the matrix once.
  if (order == RowMajor && m == 1 && n > 0 && k > 0) {
    int a_stride = trans_a == NoTrans ? 1 : lda;
    if (trans_b == NoTrans) {
      scipy_cblas_sgemv(RowMajor, Trans, k, n, alpha, b, ldb, a, a_stride, beta, c, 1);
    } else {
      scipy_cblas_sgemv(RowMajor, NoTrans, n, k, alpha, b, ldb, a, a_stride, beta, c, 1);
    }
    return;
  }
  if (order == RowMajor && n == 1 && m > 0 && k > 0) {
    int b_stride = trans_b == NoTrans ? ldb : 1;
    if (trans_a == NoTrans) {
      scipy_cblas_sgemv(RowMajor, NoTrans, m, k, alpha, a, lda, b, b_stride, beta, c, ldc);
    } else {
      scipy_cblas_sgemv(RowMajor, Trans, k, m, alpha, a, lda, b, b_stride, beta, c, ldc);
    }
    return;
  }
  if (order != RowMajor || m < 1 || n < 1 || k < 1) {
    scipy_cblas_sgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
    return;
  }
  bool by_columns = n >= m;
  int all = by_columns ? n : m, size = piece_size(all, by_columns ? m : n, k);
  run_pieces((all + size - 1) / size, [=](int piece) {
    std::ptrdiff_t first = std::ptrdiff_t(piece) * size;
    int count = int(std::min<std::ptrdiff_t>(size, all - first));
    const float* left = by_columns ? a : a + first * (trans_a == NoTrans ? lda : 1);
    const float* right = by_columns ? b + first * (trans_b == NoTrans ? 1 : ldb) : b;
    float* to = c + (by_columns ? first : first * ldc);
    int rows = by_columns ? m : count, columns = by_columns ? count : n;
    scipy_cblas_sgemm(RowMajor, trans_a, trans_b, rows, columns, k, alpha, left, lda, right, ldb,
                      beta, to, ldc);
  });
}

void cblas_dgemm(int order, int trans_a, int trans_b, int m, int n, int k, double alpha,
                 const double* a, int lda, const double* b, int ldb, double beta, double* c,
                 int ldc) {
  threads();
  scipy_cblas_dgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
}

void multiply_by_rows(int m, int n, int k, const float* a, int stride, const float* b, bool adds,
                      float* c) {
  cblas_sgemm(RowMajor, NoTrans, NoTrans, m, n, k, 1, a, stride, b, n, adds ? 1 : 0, c, n);
}

void multiply_on_all_threads(int m, int n, int k, const float* a, const float* b, float* c) {
  cblas_sgemm(RowMajor, NoTrans, Trans, m, n, k, 1, a, k, b, k, 0, c, n);
}
