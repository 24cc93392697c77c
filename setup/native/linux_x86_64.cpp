// What mlx-rs expects of an Apple system and MLX's Linux wheel lacks. Compiled into libmlxc.so.
#include <immintrin.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <ctime>

#include "mlx/allocator.h"
#include "mlx/c/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/array.h"
#include "mlx/c/private/enums.h"

// --- Half-precision accessors: mlx/c/half.h declares them on ARM only, mlx-rs always calls them.

namespace {
template <typename T>
int item_bits(std::uint16_t* result, mlx_array array) {
  try {
    T value = mlx_array_get_(array).item<T>();
    static_assert(sizeof(value) == sizeof(*result));
    std::memcpy(result, &value, sizeof(value));
  } catch (std::exception& error) {
    mlx_error(error.what());
    return 1;
  }
  return 0;
}

template <typename T>
const std::uint16_t* data_bits(mlx_array array) {
  try {
    return reinterpret_cast<const std::uint16_t*>(mlx_array_get_(array).data<T>());
  } catch (std::exception& error) {
    mlx_error(error.what());
    return nullptr;
  }
}
} // namespace

extern "C" int mlx_array_item_float16(std::uint16_t* result, const mlx_array array) {
  return item_bits<mlx::core::float16_t>(result, array);
}
extern "C" int mlx_array_item_bfloat16(std::uint16_t* result, const mlx_array array) {
  return item_bits<mlx::core::bfloat16_t>(result, array);
}
extern "C" const std::uint16_t* mlx_array_data_float16(const mlx_array array) {
  return data_bits<mlx::core::float16_t>(array);
}
extern "C" const std::uint16_t* mlx_array_data_bfloat16(const mlx_array array) {
  return data_bits<mlx::core::bfloat16_t>(array);
}

// --- The clock that mlx-rs seeds its default random state with.

extern "C" std::uint64_t mach_approximate_time() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::uint64_t(now.tv_sec) * 1'000'000'000u + std::uint64_t(now.tv_nsec);
}

// --- Arrays over memory that is not MLX's. MLX can wrap such memory on a GPU; its CPU allocator
// cannot and copies it, weights and all. A CPU buffer is plain memory behind a word with its size,
// so any memory with such a word's room before it will do; the word itself is only looked at when
// MLX considers reusing the buffer for a result of the same number of elements.
// This replaces mlx-c's function: setup.sh makes that one weak.

extern "C" mlx_array mlx_array_new_data_managed_payload(
    void* data, const int* shape, int dim, mlx_dtype dtype, void* payload, void (*dtor)(void*)) {
  using namespace mlx::core;
  try {
    static const std::ptrdiff_t room = [] {
      auto probe = allocator::malloc(64);
      auto found = static_cast<char*>(probe.raw_ptr()) - static_cast<char*>(probe.ptr());
      allocator::free(probe);
      return found;
    }();
    auto cpp_dtype = mlx_dtype_to_cpp(dtype);
    auto release = [dtor, payload](allocator::Buffer) { dtor(payload); };
    allocator::Buffer buffer(static_cast<char*>(data) - room);
    return mlx_array_new_(array(buffer, Shape(shape, shape + dim), cpp_dtype, release));
  } catch (std::exception& error) {
    mlx_error(error.what());
    return mlx_array_new_();
  }
}

// --- Powers. MLX's `power` calls this for each element, many thousands of times with one base:
// attention and SwiGLU take their exponentials from it. The C library works out the base's
// logarithm every time, which is half of its cost. As there, all is in double precision and
// rounded once, within 0.51 units of the last place.

namespace {
constexpr int steps = 32;
constexpr int step_bits = 5;

// 2^(i / steps), less what adding i to a double's bits below its exponent adds.
const auto fractions = [] {
  std::array<std::uint64_t, steps> table;
  for (int i = 0; i < steps; ++i) {
    double value = std::exp2(double(i) / steps);
    std::memcpy(&table[i], &value, sizeof value);
    table[i] -= std::uint64_t(i) << (52 - step_bits);
  }
  return table;
}();
} // namespace

extern "C" float powf(float base, float exponent) {
  [[gnu::tls_model("initial-exec")]] thread_local float known = 1;
  [[gnu::tls_model("initial-exec")]] thread_local double log2_of_known = 0;
  if (base != known) [[unlikely]] {
    log2_of_known = std::log2(double(base));
    known = base;
  }
  double z = exponent * log2_of_known;
  if (!(std::fabs(z) < 126)) [[unlikely]] { // subnormal, infinite or not a number
    return float(std::pow(double(base), double(exponent)));
  }
  constexpr double rounder = 0x1.8p52 / steps; // adding it leaves z in steps in the lowest bits
  double shifted = z + rounder;
  std::uint64_t at, bits;
  std::memcpy(&at, &shifted, sizeof at);
  bits = fractions[at % steps] + (at << (52 - step_bits));
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  double t = (z - (shifted - rounder)) * 0x1.62e42fefa39efp-1; // 2^r = e^t, |t| < 0.011
  return float(scale * ((1 + t) + t * t * (0.5 + t * (1.0 / 6))));
}

// --- BLAS. The MLX wheel carries the reference BLAS, some 30 times slower than OpenBLAS.
// These definitions come before it in the loader's search order and so replace it.

extern "C" {
enum Order { RowMajor = 101, ColMajor = 102 };
enum Transpose { NoTrans = 111, Trans = 112 };

void scipy_cblas_sgemm(
    int, int, int, int, int, int, float, const float*, int, const float*, int, float, float*, int);
void scipy_cblas_dgemm(
    int, int, int, int, int, int, double, const double*, int, const double*, int, double, double*, int);
void scipy_cblas_sgemv(
    int, int, int, int, float, const float*, int, const float*, int, float, float*, int);

}

// Products of a few rows with a narrow matrix: one position's attention, of heads that share keys
// and values, over a long context. OpenBLAS packs the keys or values first, a copy of all that is
// read. These read them once, in order, and need five to eight tenths of its time.

namespace {
constexpr int most_rows = 4;
constexpr int widest = 256;

// C[R,n] = alpha * A[R,k] * B[n,k]^T; k is a multiple of 16.
template <int R>
[[gnu::target("avx2,fma")]] void rows_by_transposed(
    int n, int k, float alpha, const float* a, int lda, const float* b, int ldb, float* c, int ldc) {
  constexpr std::ptrdiff_t ahead = 8; // rows fetched before their turn
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

// C[R,n] = alpha * A[R,k] * B[k,n]; n is a multiple of 32. Some of B's rows at a time, which stay in
// the first cache while its columns are read 32 at a time.
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
const bool has_fma = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");

// The kernel for a product in row-major order whose A is not transposed, if there is one.
RowsKernel* rows_kernel(bool transposed, int m, int n, int k) {
  if (!has_fma || m < 2 || m > most_rows || n < 1 || k < 1) return nullptr;
  if (transposed) return k <= widest && k % 16 == 0 ? by_transposed[m] : nullptr;
  return n <= widest && n % 32 == 0 ? by_matrix[m] : nullptr;
}
} // namespace

extern "C" {
// C[m,n] = alpha * op(A)[m,k] * op(B)[k,n] + beta * C
void cblas_sgemm(
    int order, int trans_a, int trans_b, int m, int n, int k, float alpha,
    const float* a, int lda, const float* b, int ldb, float beta, float* c, int ldc) {
  // OpenBLAS packs all of B even for one row of A, which is most of a decode step: a product of
  // one row or column is a matrix-vector product, and sgemv reads the matrix once.
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
  if (order == RowMajor && trans_a == NoTrans && beta == 0) {
    if (auto* kernel = rows_kernel(trans_b != NoTrans, m, n, k)) {
      return kernel(n, k, alpha, a, lda, b, ldb, c, ldc);
    }
  }
  scipy_cblas_sgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void cblas_dgemm(
    int order, int trans_a, int trans_b, int m, int n, int k, double alpha,
    const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  scipy_cblas_dgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
}
