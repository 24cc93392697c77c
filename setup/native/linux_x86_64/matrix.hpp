// A matrix of weights as a checkpoint stores it: in 32 or 16 bits, or quantised.
#pragma once
#include <cstddef>
#include <cstdint>

enum class Number { float32, float16, bfloat16, affine, mxfp4, mxfp8, nvfp4 };

// `W` [rows, width], in row-major order.
struct Matrix {
  Number number;
  int rows, width;
  const void* values; // numbers, or u32 words of packed numbers
  // Of quantised matrices.
  int bits = 0, group = 0;
  const void* scales = nullptr; // [rows, width / group]: of type `scale`, or u8
  const void* biases = nullptr; // of affine matrices
  Number scale = Number::float32;

  bool is_quantized() const { return number >= Number::affine; }
  int groups() const { return width / group; }
  std::ptrdiff_t row_bytes() const {
    if (is_quantized()) return std::ptrdiff_t(width) * bits / 8;
    return std::ptrdiff_t(width) * (number == Number::float32 ? 4 : 2);
  }
  const std::uint8_t* row(int at) const {
    return static_cast<const std::uint8_t*>(values) + at * row_bytes();
  }
};
