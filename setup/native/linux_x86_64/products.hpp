// Products with a matrix of any kind, and its rows.
#pragma once
#include "dense_products.hpp"
#include "kernels.hpp"
#include "packed_products.hpp"
#include "simd.hpp"

namespace KERNELS {
inline void multiply_matrix(const Matrix& matrix, const Rows& rows, int first, int end, float* y,
                            std::ptrdiff_t stride) {
  switch (matrix.number) {
    case Number::float32:
      return multiply_dense<Number::float32>(matrix, rows, first, end, y, stride);
    case Number::float16:
      return multiply_dense<Number::float16>(matrix, rows, first, end, y, stride);
    case Number::bfloat16:
      return multiply_dense<Number::bfloat16>(matrix, rows, first, end, y, stride);
    default:
      break;
  }
  with_packing(matrix,
               [&](auto of) { multiply_packed<of.packing>(matrix, rows, first, end, y, stride); });
}

inline void expand_row(const Matrix& matrix, int at, float* row) {
  if (!matrix.is_quantized())
    return to_float32(matrix.number, matrix.row(at), 0, matrix.width, row);
  with_packing(matrix, [&](auto of) { expand_packed<of.packing>(matrix, at, row); });
}
} // namespace KERNELS
