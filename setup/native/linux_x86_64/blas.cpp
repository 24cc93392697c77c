// BLAS functions. The MLX wheel contains the reference BLAS, about 30 times slower than OpenBLAS.
// These definitions come first in the loader's search order and replace it.

#include <cstddef>
#include <system_error>

#include "few_rows.hpp"
#include "product.hpp"
#include "threads.hpp"

extern "C" {
enum Order { RowMajor = 101, ColMajor = 102 };
enum Transpose { NoTrans = 111, Trans = 112 };

void scipy_cblas_sgemm(
    int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
void scipy_cblas_dgemm(
    int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*, int);
void scipy_cblas_sgemv(
    int, int, int, int, float, const float*, int, const float*, int, float, float*, int);

typedef void (*OpenblasJob)(int number, void* data, int extra);
typedef void (*OpenblasRun)(int sync, OpenblasJob, int jobs, std::size_t data_size, void* data, int extra);
void scipy_openblas_set_threads_callback_function(OpenblasRun);
int scipy_openblas_get_num_threads();
}

namespace {
extern Threads* const threads;

void run_openblas(int, OpenblasJob job, int jobs, std::size_t data_size, void* data, int extra) {
  threads->run(jobs, [=](int i) { job(i, static_cast<char*>(data) + i * data_size, extra); });
}

// Null if OpenBLAS has one thread, or if no thread can be created; OpenBLAS then uses its own.
Threads* const threads = [] {
  Threads* started = nullptr;
  int count = scipy_openblas_get_num_threads();
  if (count < 2) return started;
  try {
    started = new Threads(count);
    scipy_openblas_set_threads_callback_function(run_openblas);
  } catch (const std::system_error&) {
  }
  return started;
}();
} // namespace

extern "C" {
// C[m,n] = alpha * op(A)[m,k] * op(B)[k,n] + beta * C
void cblas_sgemm(
    int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
    const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  if (order == RowMajor && trans_a == NoTrans) {
    Product product{trans_b != NoTrans, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc};
    if (few_rows::multiply(product, threads)) return;
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
  scipy_cblas_sgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void cblas_dgemm(
    int order, int trans_a, int trans_b, int m, int n, int k, double alpha,
    const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  scipy_cblas_dgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
}
