// Products of a few rows of activations with a matrix in 32 or 16 bits.
#pragma once
#include "kernels.hpp"
#include "simd.hpp"

namespace KERNELS {
constexpr int line = 64; // bytes of a cache line

// Prefetches what a kernel reads after about 10 KiB: it reads a few rows at a time, in an order
// that the processor does not predict.
INLINE void prefetch(const void* at) {
  _mm_prefetch(static_cast<const char*>(at) + 10240, _MM_HINT_T0);
}

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

template <Number N>
INLINE void to_float32(const void* values, std::ptrdiff_t first, int count, float* to) {
  int at = 0;
  for (; at + lanes <= count; at += lanes) store(to + at, load_number<N>(values, first + at));
  if (at == count) return;
  if (count >= lanes) // the last numbers, of which some are written again
    return store(to + count - lanes, load_number<N>(values, first + count - lanes));
  for (; at < count; ++at) to[at] = number_at(N, values, first + at);
}

INLINE void to_float32(Number number, const void* values, std::ptrdiff_t first, int count,
                       float* to) {
  if (number == Number::float32) return to_float32<Number::float32>(values, first, count, to);
  if (number == Number::float16) return to_float32<Number::float16>(values, first, count, to);
  to_float32<Number::bfloat16>(values, first, count, to);
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
  constexpr int size = N == Number::float32 ? 4 : 2; // bytes of an element
  int at = 0;
  for (; at + lanes <= matrix.width; at += lanes) {
    Floats w[C];
    UNROLL for (int c = 0; c < C; ++c) {
      w[c] = load_number<N>(rows[c], at);
      prefetch(static_cast<const char*>(rows[c]) + at * size);
    }
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

template <Number N, int R>
void multiply_dense_rows(const Matrix& matrix, const float* x, std::ptrdiff_t x_stride, int first,
                         int end, float* y, std::ptrdiff_t stride) {
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
