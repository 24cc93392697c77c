// The kernels for processors with AVX-512.

// Before the instruction set is selected, so that no function of these headers has it.
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <initializer_list>
#include <new>

#include "kernels.hpp"
#include "unroll.hpp"

#pragma GCC target("avx2,fma,f16c,avx512f,avx512bw,avx512vl,avx512dq")
#define KERNELS avx512
#define VECTOR_BITS 512
#include "attention_kernel.hpp"
#include "elementwise.hpp"
#include "products.hpp"

constinit const Kernels avx512_kernels{
    .multiply = avx512::multiply_matrix,
    .expand = avx512::expand_row,
    // Products in floats are as fast.
    .has_digits = [](const Matrix&) { return false; },
    .to_digits = nullptr,
    .needs_reordered = avx512::needs_reordered,
    .reorder = avx512::reorder,
    .group_sums = avx512::group_sums,
    .rms_norm = avx512::rms_norm,
    .rms_norm_gradient = avx512::rms_norm_gradient,
    .swiglu = avx512::swiglu,
    .swiglu_gradient = avx512::swiglu_gradient,
    .softmax = avx512::softmax,
    .rotate = avx512::rotate,
    .attend = avx512::attend,
};
