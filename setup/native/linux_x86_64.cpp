// What mlx-rs expects of an Apple system and MLX's Linux wheel lacks. Compiled into libmlxc.so.
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
  scipy_cblas_sgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}

void cblas_dgemm(
    int order, int trans_a, int trans_b, int m, int n, int k, double alpha,
    const double* a, int lda, const double* b, int ldb, double beta, double* c, int ldc) {
  scipy_cblas_dgemm(order, trans_a, trans_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
}
