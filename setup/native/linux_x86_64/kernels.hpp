// The kernels of the CPU primitives. Each exists for AVX2 and for AVX-512 (kernels_*.cpp).
#pragma once
#include <cstddef>

#include "matrix.hpp"

// Rows of activations `x` [count, width], with what products need of them.
struct Rows {
  int count;
  const float* x;
  std::ptrdiff_t stride;
  // [count, width], in the order of `Kernels::reorder`; null if the matrix needs none.
  const float* reordered;
  // Sums of the groups of a quantised matrix, [count, padded_groups]; null without biases.
  const float* sums;
  // Of one row, for a matrix with `Kernels::has_digits`.
  const std::int8_t* digits = nullptr; // [3 · width]
  const float* steps = nullptr;        // [padded_groups]
};

struct Kernels {
  // y[r * stride + n - first] = x_r · w_n for the rows n of the matrix from `first` to `end`. One
  // row with `Rows::digits` is multiplied by them.
  void (*multiply)(const Matrix&, const Rows&, int first, int end, float* y, std::ptrdiff_t stride);
  // The row `at` of the matrix in f32.
  void (*expand)(const Matrix&, int at, float* row);
  // True if products of one row need `Rows::digits`.
  bool (*has_digits)(const Matrix&);
  void (*to_digits)(const float* x, const float* reordered, int width, int group,
                    std::int8_t* digits, float* steps);
  // True if products need `Rows::reordered`.
  bool (*needs_reordered)(const Matrix&);
  void (*reorder)(const float* x, int width, float* reordered);
  void (*group_sums)(const float* x, int width, int group, float* sums);
  // y = x / sqrt(mean(x²) + eps) · weight
  void (*rms_norm)(const float* x, const float* weight, float eps, int width, float* y);
  // The gradient of x; that of the weight is added to `dw`.
  void (*rms_norm_gradient)(const float* x, const float* weight, float eps, int width,
                            const float* dy, float* dx, float* dw);
  // y = gate · sigmoid(gate) · up
  void (*swiglu)(const float* gate, const float* up, int count, float* y);
  void (*swiglu_gradient)(const float* gate, const float* up, const float* dy, int count,
                          float* dgate, float* dup);
  // y = e^(x - most) / total, where `most` is the largest x. A NaN makes y and `total` NaN.
  void (*softmax)(const float* x, int count, float* y, float* most, float* total);
  // Normalises and rotates `heads` heads of one token; `to` has a head per `stride`.
  void (*rotate)(const float* x, const float* norm, float eps, const float* cosines,
                 const float* sines, int heads, int head_dim, float factor, float* to,
                 std::ptrdiff_t stride);
  // Attention of the scaled queries [count, head_dim], at most `most_queries`, over the first
  // `seen[i]` positions of the keys and values [.., head_dim], to `y[i]`. `transposed` has the keys
  // as [.., head_dim, key_block], for many queries, or is null. `scratch` has
  // `attention_scratch(head_dim)` floats.
  void (*attend)(const float* queries, int count, const int* seen, const float* keys,
                 const float* transposed, const float* values, int head_dim, float* const* y,
                 float* scratch);
};

constexpr int most_queries = 64;
constexpr int most_head_dim = 256;
constexpr int key_block = 64;
constexpr std::size_t attention_scratch(int head_dim) {
  return std::size_t(most_queries) * (key_block + head_dim + 2);
}
constexpr int most_groups = 4096;
// Rows of activations that `multiply` reads a matrix for once.
constexpr int most_rows = 16;

// The length of a row of `Rows::sums`, whose last numbers are zeros.
constexpr int padded_groups(int groups) { return (groups + 15) / 16 * 16; }

// Null if the processor lacks the instructions.
extern const Kernels* const kernels;
extern const Kernels avx2_kernels, avx512_kernels;
