// The kernels for processors with AVX2.

// Before the instruction set is selected, so that no function of these headers has it.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <new>

#include "kernels.hpp"
#include "unroll.hpp"

#pragma GCC target("avx2,fma,f16c")
#define KERNELS avx2
#define VECTOR_BITS 256
#include "attention_kernel.hpp"
#include "elementwise.hpp"
#include "integer_products.hpp"
#include "products.hpp"

constinit const Kernels avx2_kernels{
    .multiply =
        [](const Matrix& matrix, const Rows& rows, int first, int end, float* y,
           std::ptrdiff_t stride) {
          if (rows.digits != nullptr) return avx2::multiply_digits(matrix, rows, first, end, y);
          avx2::multiply_matrix(matrix, rows, first, end, y, stride);
        },
    .expand = avx2::expand_row,
    .has_digits = avx2::has_digits,
    .to_digits = avx2::to_digits,
    .needs_reordered = avx2::needs_reordered,
    .reorder = avx2::reorder,
    .group_sums = avx2::group_sums,
    .rms_norm = avx2::rms_norm,
    .rms_norm_gradient = avx2::rms_norm_gradient,
    .swiglu = avx2::swiglu,
    .swiglu_gradient = avx2::swiglu_gradient,
    .softmax = avx2::softmax,
    .rotate = avx2::rotate,
    .attend = avx2::attend,
};
