// Products of one row of activations with an affine matrix of 4 bits, in integers. Each group of
// activations becomes integers of 24 bits, as three digits of 8 bits, which is as exact as f32: the
// error of an activation is at most 2^-24 of the largest of its group.
#pragma once
#include "packed_products.hpp"

namespace KERNELS {
constexpr int digit_bytes = 4 * lanes; // of a vector
constexpr int digits_unit = 6 * digit_bytes;
static_assert(unit == 2 * digit_bytes);

inline bool has_digits(const Matrix& matrix) {
  return matrix.number == Number::affine && matrix.bits == 4 && needs_reordered(matrix);
}

// The largest integer: its highest digit is 127, after rounding too.
constexpr float most_digits = 127 * 65536;

// An activation is its integer times the step of its group; `steps` has `padded_groups`, the last
// of them zeros. The digits of a unit are the lowest ones of the numbers 0, 2, 4 .., then of
// 1, 3, 5 .., and so the others. Infinite activations and NaN have wrong digits: the sum of their
// group, which is not finite, makes the product so.
inline void to_digits(const float* x, const float* reordered, int width, int group,
                      std::int8_t* digits, float* steps) {
  float factors[most_groups + lanes];
  int count = width / group;
  for (int g = 0; g < count; ++g, x += group) {
    Floats most = zero();
    for (int i = 0; i < group; i += lanes) {
      Floats part = load(x + i);
      most = larger(most, larger(part, subtract(zero(), part)));
    }
    // Not infinite for groups of zeros and of tiny numbers.
    float step = largest(most) / most_digits;
    steps[g] = step > 0x1p-120f ? step : 0x1p-120f;
    factors[g] = 1 / steps[g];
  }
  for (int g = count; g < padded_groups(count); ++g) steps[g] = 0;
  Units units(group);
  Ints half = all_ints(128);
  for (int i = 0; i < width; i += unit, digits += digits_unit) {
    Floats factor = units.each(factors, i);
    for (int odd = 0; odd < 2; ++odd) {
      Ints vectors[3]{};
      UNROLL for (int k = 0; k < 4; ++k) {
        Ints number = to_ints(multiply(load(reordered + i + (2 * k + odd) * lanes), factor));
        UNROLL for (Ints& vector : vectors) {
          vector = either(vector, shifted_left(masked(number, 255), 8 * k));
          number = shifted_right_signed(add_ints(number, half), 8);
        }
      }
      for (int digit = 0; digit < 3; ++digit)
        store_ints(digits + (2 * digit + odd) * digit_bytes, vectors[digit]);
    }
  }
}

// C rows of the matrix.
template <int C>
void multiply_digits_tile(const Matrix& matrix, int at, const Rows& row, float* y) {
  Units units(matrix.group);
  Groups groups[C];
  const std::uint8_t* bytes[C];
  UNROLL for (int c = 0; c < C; ++c) {
    bytes[c] = matrix.row(at + c);
    groups[c].read(matrix, at + c);
    for (int g = 0; g < groups[c].count; g += lanes)
      store(groups[c].scales + g, multiply(load(groups[c].scales + g), load(row.steps + g)));
  }
  Floats low[C], high[C];
  UNROLL for (int c = 0; c < C; ++c) low[c] = high[c] = zero();
  const std::int8_t* digits = row.digits;
  for (int i = 0; i < matrix.width; i += unit, digits += digits_unit) {
    Ints vectors[6];
    UNROLL for (int v = 0; v < 6; ++v) vectors[v] = load_ints(digits + v * digit_bytes);
    UNROLL for (int c = 0; c < C; ++c) {
      Ints words = load_ints(bytes[c] + i / 2);
      prefetch(bytes[c] + i / 2);
      Ints even = masked(words, 0x0f0f0f0f), odd = masked(shifted_right(words, 4), 0x0f0f0f0f);
      Ints first = dot_bytes(even, vectors[0], odd, vectors[1]),
           second = dot_bytes(even, vectors[2], odd, vectors[3]),
           third = dot_bytes(even, vectors[4], odd, vectors[5]);
      Floats scale = units.each(groups[c].scales, i);
      Floats lowest = to_floats(add_ints(first, shifted_left(second, 8)));
      low[c] = add_product(low[c], lowest, scale);
      high[c] = add_product(high[c], to_floats(third), scale);
    }
  }
  Sums<1, C> products;
  UNROLL for (int c = 0; c < C; ++c) products[0][c] = add_product(low[c], high[c], all(65536));
  finish<true, 1, C>(groups, row.sums, products, y, 0);
}

inline void multiply_digits(const Matrix& matrix, const Rows& row, int first, int end, float* y) {
  constexpr int C = 4;
  int at = first;
  for (; at + C <= end; at += C) multiply_digits_tile<C>(matrix, at, row, y + at - first);
  for (; at < end; ++at) multiply_digits_tile<1>(matrix, at, row, y + at - first);
}
} // namespace KERNELS
