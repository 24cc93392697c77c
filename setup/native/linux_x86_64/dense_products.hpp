// Products of a few rows of activations with a matrix in 32 or 16 bits.
#pragma once
#include "kernels.hpp"
#include "simd.hpp"

namespace KERNELS {
constexpr int tile = 4; // rows of activations
template <Number N>
INLINE Floats load_number(const void* values, std::ptrdiff_t at) {
  if constexpr (N == Number::float32) return load(static_cast<const float*>(values) + at);
  if constexpr (N == Number::float16)
    return load_float16(static_cast<const std::uint16_t*>(values) + at);
  if constexpr (N == Number::bfloat16)
    return load_bfloat16(static_cast<const std::uint16_t*>(values) + at);
}

INLINE float number_at(Number number, const void* values, std::ptrdiff_t at) {
  if (number == Number::float32) return static_cast<const float*>(values)[at];
  std::uint16_t bits = static_cast<const std::uint16_t*>(values)[at];
  if (number == Number::float16) return _cvtsh_ss(bits);
  std::uint32_t wide = std::uint32_t(bits) << 16;
  float value;
  std::memcpy(&value, &wide, sizeof value);
  return value;
}

INLINE void to_float32(Number number, const void* values, std::ptrdiff_t first, int count,
                       float* to) {
  int at = 0;
  for (; at + lanes <= count; at += lanes) {
    Floats x = number == Number::float32   ? load_number<Number::float32>(values, first + at)
               : number == Number::float16 ? load_number<Number::float16>(values, first + at)
                                           : load_number<Number::bfloat16>(values, first + at);
    store(to + at, x);
  }
  for (; at < count; ++at) to[at] = number_at(number, values, first + at);
}

// R rows of activations, C rows of the matrix.
template <Number N, int R, int C>
void multiply_dense_tile(const Matrix& matrix, const float* x, std::ptrdiff_t x_stride, int first,
                         float* y, std::ptrdiff_t stride) {
  const void* rows[C];
  UNROLL for (int c = 0; c < C; ++c) rows[c] = matrix.row(first + c);
  Floats sums[R][C];
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int c = 0; c < C; ++c) sums[r][c] = zero();
  int at = 0;
  for (; at + lanes <= matrix.width; at += lanes) {
    Floats w[C];
    UNROLL for (int c = 0; c < C; ++c) w[c] = load_number<N>(rows[c], at);
    UNROLL for (int r = 0; r < R; ++r) {
      Floats row = load(x + r * x_stride + at);
      UNROLL for (int c = 0; c < C; ++c) sums[r][c] = add_product(sums[r][c], row, w[c]);
    }
  }
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int c = 0; c < C; ++c) {
      float total = sum(sums[r][c]);
      for (int i = at; i < matrix.width; ++i)
        total += x[r * x_stride + i] * number_at(N, rows[c], i);
      y[r * stride + c] = total;
    }
}

// One row of activations and one of the matrix, in four sums: the memory is read in order.
template <Number N>
float multiply_dense_row(const Matrix& matrix, const float* x, int at) {
  const void* row = matrix.row(at);
  constexpr int parts = 4;
  Floats sums[parts];
  UNROLL for (auto& sum : sums) sum = zero();
  int i = 0;
  for (; i + parts * lanes <= matrix.width; i += parts * lanes) {
    UNROLL for (int part = 0; part < parts; ++part) {
      int k = i + part * lanes;
      sums[part] = add_product(sums[part], load(x + k), load_number<N>(row, k));
    }
  }
  for (; i + lanes <= matrix.width; i += lanes)
    sums[0] = add_product(sums[0], load(x + i), load_number<N>(row, i));
  float total = sum(add(add(sums[0], sums[1]), add(sums[2], sums[3])));
  for (; i < matrix.width; ++i) total += x[i] * number_at(N, row, i);
  return total;
}

template <Number N, int R>
void multiply_dense_rows(const Matrix& matrix, const float* x, std::ptrdiff_t x_stride, int first,
                         int end, float* y, std::ptrdiff_t stride) {
  if constexpr (R == 1) {
    for (int at = first; at < end; ++at) y[at - first] = multiply_dense_row<N>(matrix, x, at);
    return;
  }
  constexpr int C = 4;
  int at = first;
  for (; at + C <= end; at += C)
    multiply_dense_tile<N, R, C>(matrix, x, x_stride, at, y + at - first, stride);
  for (; at < end; ++at)
    multiply_dense_tile<N, R, 1>(matrix, x, x_stride, at, y + at - first, stride);
}

template <Number N>
void multiply_dense(const Matrix& matrix, const Rows& rows, int first, int end, float* y,
                    std::ptrdiff_t stride) {
  // Parts of the matrix that stay in a cache while all rows of activations use them.
  constexpr int part = 16;
  for (int start = first; start < end; start += part) {
    int stop = start + part < end ? start + part : end;
    for (int r = 0; r < rows.count; r += tile) {
      const float* x = rows.x + r * rows.stride;
      float* to = y + r * stride + start - first;
      switch (rows.count - r) {
        case 1:
          multiply_dense_rows<N, 1>(matrix, x, rows.stride, start, stop, to, stride);
          break;
        case 2:
          multiply_dense_rows<N, 2>(matrix, x, rows.stride, start, stop, to, stride);
          break;
        case 3:
          multiply_dense_rows<N, 3>(matrix, x, rows.stride, start, stop, to, stride);
          break;
        default:
          multiply_dense_rows<N, 4>(matrix, x, rows.stride, start, stop, to, stride);
      }
    }
  }
}
} // namespace KERNELS
