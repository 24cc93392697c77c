// Products of a few rows of activations with a quantised matrix, which is expanded in registers: as
// exact as products of the dequantised matrix in f32.
#pragma once
#include "dense_products.hpp"
#include "kernels.hpp"
#include "simd.hpp"

namespace KERNELS {
struct Tables {
  alignas(64) float four_bits[16]; // 0 to 15
  alignas(64) float e2m1[16];
  alignas(64) float e4m3[256];
  alignas(64) float e8m0[256];
  alignas(64) std::int32_t word_starts[16]; // 0, 8, 16 ..: of words with 4 bits
  // The shift of each lane, and the bytes of its number, by bits.
  alignas(64) std::int32_t shifts[9][16];
  alignas(64) std::uint8_t bytes[9][64];

  // At compile time: the processor of a program may lack the instructions of this file.
  constexpr Tables() : four_bits{}, e2m1{}, e4m3{}, e8m0{}, word_starts{}, shifts{}, bytes{} {
    constexpr float magnitudes[8]{0, 0.5f, 1, 1.5f, 2, 3, 4, 6};
    for (int i = 0; i < 16; ++i) {
      word_starts[i] = 8 * i;
      four_bits[i] = float(i);
      e2m1[i] = i < 8 ? magnitudes[i] : -magnitudes[i - 8];
    }
    for (int i = 0; i < 256; ++i) {
      int exponent = (i >> 3) & 15, fraction = i & 7;
      float magnitude = exponent == 0 ? __builtin_ldexpf(float(fraction), -9)
                                      : __builtin_ldexpf(float(8 + fraction), exponent - 10);
      e4m3[i] = i < 128 ? magnitude : -magnitude;
      e8m0[i] = i == 255 ? __builtin_nanf("") : __builtin_ldexpf(1.0f, i - 127);
    }
    for (int bits = 1; bits <= 8; ++bits) {
      for (int lane = 0; lane < 16; ++lane) {
        int at = lane * bits;
        shifts[bits][lane] = at % 8;
        // A number of up to 8 bits spans two bytes; the others are 0.
        for (int i = 0; i < 4; ++i) {
          int byte = at / 8 + i;
          bytes[bits][4 * lane + i] = i < 2 && byte < 16 ? std::uint8_t(byte) : 0x80;
        }
      }
    }
  }
};
inline constexpr Tables tables;

// The scales and biases of a row in f32, with zeros up to a multiple of `lanes`.
struct Groups {
  // Not a power of two: the arrays of several rows would share lines of the L1 cache. A kernel
  // reads a vector after the last group.
  float scales[most_groups + lanes], biases[most_groups + lanes];
  int count;

  Groups() {}
  Groups(const Matrix& matrix, int row) { read(matrix, row); }

  INLINE void read(const Matrix& matrix, int row) {
    count = matrix.groups();
    std::ptrdiff_t first = std::ptrdiff_t(row) * count;
    if (matrix.number == Number::affine) {
      to_float32(matrix.scale, matrix.scales, first, count, scales);
      to_float32(matrix.scale, matrix.biases, first, count, biases);
      store(biases + count, zero());
    } else {
      const float* table = matrix.number == Number::nvfp4 ? tables.e4m3 : tables.e8m0;
      auto bytes = static_cast<const std::uint8_t*>(matrix.scales) + first;
      for (int i = 0; i < count; ++i) scales[i] = table[bytes[i]];
    }
    store(scales + count, zero());
  }
};

// The bytes of a row, of which up to 16 after its end can be read.
class ReadableRow {
 public:
  ReadableRow() = default;
  ReadableRow(const Matrix& matrix, int at) { read(matrix, at); }
  ReadableRow(const ReadableRow&) = delete;
  ~ReadableRow() { __builtin_free(copy); }

  void read(const Matrix& matrix, int at) {
    bytes = matrix.row(at);
    constexpr int after = 16;
    bool is_inside = std::ptrdiff_t(matrix.rows - 1 - at) * matrix.row_bytes() >= after;
    if (is_inside) return;
    copy = static_cast<std::uint8_t*>(__builtin_malloc(matrix.row_bytes() + after));
    if (copy == nullptr) throw std::bad_alloc();
    std::memcpy(copy, bytes, matrix.row_bytes());
    bytes = copy;
  }
  const std::uint8_t* bytes = nullptr;

 private:
  std::uint8_t* copy = nullptr;
};

enum class Packing { affine2, affine3, affine4, affine5, affine6, affine8, e2m1, e4m3 };
constexpr int bits_of(Packing p) {
  constexpr int bits[]{2, 3, 4, 5, 6, 8, 4, 8};
  return bits[int(p)];
}

// Values of a table of 16 numbers, in two halves, by the lowest four bits of `numbers`.
INLINE Floats of_sixteen(Ints numbers, Floats low, [[maybe_unused]] Floats high) {
#if VECTOR_BITS == 512
  return permuted(low, numbers);
#else
  Floats second = _mm256_castsi256_ps(_mm256_slli_epi32(numbers, 28)); // the sign chooses the half
  return _mm256_blendv_ps(permuted(low, numbers), permuted(high, numbers), second);
#endif
}

// `lanes` numbers in their order, before scale and bias.
template <Packing P>
INLINE Floats unpacked(const std::uint8_t* from) {
  constexpr int bits = bits_of(P);
  Ints numbers;
  if constexpr (bits == 8) {
#if VECTOR_BITS == 512
    numbers = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
#else
    numbers = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
#endif
  } else {
    numbers = each_shifted_right(bytes_of(from, load_ints(tables.bytes[bits])),
                                 load_ints(tables.shifts[bits]));
    numbers = masked(numbers, (1 << bits) - 1);
  }
  if constexpr (P == Packing::e2m1)
    return of_sixteen(numbers, load(tables.e2m1), load(tables.e2m1 + 16 - lanes));
  if constexpr (P == Packing::e4m3) return of_e4m3(numbers);
  return to_floats(numbers);
}

template <Packing P>
void expand_packed(const Matrix& matrix, int at, float* row) {
  Groups groups(matrix, at);
  ReadableRow bytes(matrix, at);
  bool has_biases = matrix.number == Number::affine;
  for (int g = 0, i = 0; g < matrix.groups(); ++g) {
    Floats scale = all(groups.scales[g]), bias = has_biases ? all(groups.biases[g]) : zero();
    for (int end = i + matrix.group; i < end; i += lanes)
      store(row + i, add_product(bias, unpacked<P>(bytes.bytes + i * bits_of(P) / 8), scale));
  }
}

// The products of R rows of activations and C rows of the matrix, without the biases.
template <int R, int C>
using Sums = Floats[R][C];

// Adds the biases' part, and writes the products.
template <bool HasBiases, int R, int C>
INLINE void finish(const Groups* groups, const float* sums, Sums<R, C>& products, float* y,
                   std::ptrdiff_t stride) {
  if constexpr (HasBiases) {
    int count = groups[0].count;
    std::ptrdiff_t sums_stride = padded_groups(count);
    for (int g = 0; g < count; g += lanes) {
      UNROLL for (int r = 0; r < R; ++r) {
        Floats of_row = load(sums + r * sums_stride + g);
        UNROLL for (int c = 0; c < C; ++c)
          products[r][c] = add_product(products[r][c], load(groups[c].biases + g), of_row);
      }
    }
  }
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int c = 0; c < C; ++c) y[r * stride + c] = sum(products[r][c]);
}

// R rows of activations and C rows of the matrix.
template <Packing P, int R, int C>
void multiply_packed_tile(const Matrix& matrix, int at, const float* x, std::ptrdiff_t x_stride,
                          const float* sums, float* y, std::ptrdiff_t stride) {
  Groups groups[C];
  ReadableRow rows[C];
  UNROLL for (int c = 0; c < C; ++c) groups[c].read(matrix, at + c), rows[c].read(matrix, at + c);
  Sums<R, C> products;
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int c = 0; c < C; ++c) products[r][c] = zero();
  int count = groups[0].count;
  for (int g = 0, i = 0; g < count; ++g) {
    for (int byte = 0; byte < matrix.group * bits_of(P) / 8; byte += line)
      UNROLL for (int c = 0; c < C; ++c) prefetch(rows[c].bytes + i * bits_of(P) / 8 + byte);
    Sums<R, C> of_group;
    UNROLL for (int r = 0; r < R; ++r)
      UNROLL for (int c = 0; c < C; ++c) of_group[r][c] = zero();
    for (int end = i + matrix.group; i < end; i += lanes) {
      Floats w[C];
      UNROLL for (int c = 0; c < C; ++c) w[c] = unpacked<P>(rows[c].bytes + i * bits_of(P) / 8);
      UNROLL for (int r = 0; r < R; ++r) {
        Floats row = load(x + r * x_stride + i);
        UNROLL for (int c = 0; c < C; ++c)
          of_group[r][c] = add_product(of_group[r][c], w[c], row);
      }
    }
    UNROLL for (int c = 0; c < C; ++c) {
      Floats scale = all(groups[c].scales[g]);
      UNROLL for (int r = 0; r < R; ++r)
        products[r][c] = add_product(products[r][c], of_group[r][c], scale);
    }
  }
  finish<P <= Packing::affine8, R, C>(groups, sums, products, y, stride);
}

// The elements of a vector of words with 4 bits.
constexpr int unit = 8 * lanes;

// The groups of a unit's words.
struct Units {
  int shift; // of a group's size: a division takes the time of several products
  Ints group_of_lane;

  explicit Units(int group) : shift(__builtin_ctz(unsigned(group))) {
    group_of_lane = each_shifted_right(load_ints(tables.word_starts), all_ints(shift));
  }

  // The number of each lane's group, for the unit from `i`.
  INLINE Floats each(const float* numbers, int i) const {
    return permuted(load(numbers + (i >> shift)), group_of_lane);
  }
};

// R rows of activations and C rows of the matrix.
template <bool IsAffine, int R, int C>
void multiply_words_tile(const Matrix& matrix, int at, const float* x, const float* sums, float* y,
                         std::ptrdiff_t stride) {
  const float* table = IsAffine ? tables.four_bits : tables.e2m1;
  Floats low = load(table), high = load(table + 16 - lanes);
  Units units(matrix.group);
  Groups groups[C];
  const std::uint8_t* bytes[C];
  UNROLL for (int c = 0; c < C; ++c) groups[c].read(matrix, at + c), bytes[c] = matrix.row(at + c);
  Sums<R, C> products;
  UNROLL for (int r = 0; r < R; ++r)
    UNROLL for (int c = 0; c < C; ++c) products[r][c] = zero();
  for (int i = 0; i < matrix.width; i += unit) {
    Sums<R, C> of_unit;
    UNROLL for (int r = 0; r < R; ++r)
      UNROLL for (int c = 0; c < C; ++c) of_unit[r][c] = zero();
    Ints words[C];
    UNROLL for (int c = 0; c < C; ++c) {
      words[c] = load_ints(bytes[c] + i / 2);
      prefetch(bytes[c] + i / 2);
    }
    UNROLL for (int k = 0; k < 8; ++k) {
      Floats w[C];
      UNROLL for (int c = 0; c < C; ++c) {
#if VECTOR_BITS != 512
        if constexpr (IsAffine)
          w[c] = to_floats(masked(shifted_right(words[c], 4 * k), 15));
        else
#endif
          w[c] = of_sixteen(shifted_right(words[c], 4 * k), low, high);
      }
      UNROLL for (int r = 0; r < R; ++r) {
        Floats row = load(x + std::ptrdiff_t(r) * matrix.width + i + k * lanes);
        UNROLL for (int c = 0; c < C; ++c) of_unit[r][c] = add_product(of_unit[r][c], w[c], row);
      }
    }
    UNROLL for (int c = 0; c < C; ++c) {
      Floats scale = units.each(groups[c].scales, i);
      UNROLL for (int r = 0; r < R; ++r)
        products[r][c] = add_product(products[r][c], of_unit[r][c], scale);
    }
  }
  finish<IsAffine, R, C>(groups, sums, products, y, stride);
}

inline bool needs_reordered(const Matrix& matrix) {
  return matrix.is_quantized() && matrix.bits == 4 && matrix.width % unit == 0 &&
         matrix.group <= unit;
}

// Number k of each of `lanes` words in turn.
inline void reorder(const float* x, int width, float* reordered) {
  for (int i = 0; i < width; i += unit)
    for (int k = 0; k < 8; ++k)
      for (int lane = 0; lane < lanes; ++lane) *reordered++ = x[i + 8 * lane + k];
}

template <Packing P, int R>
void multiply_packed_rows(const Matrix& matrix, const Rows& rows, int row, int first, int end,
                          float* y, std::ptrdiff_t stride) {
  const float* sums = rows.sums;
  if (sums != nullptr) sums += std::ptrdiff_t(row) * padded_groups(matrix.groups());
  constexpr int C = R == 1 ? 4 : 2;
  int at = first;
  if constexpr (bits_of(P) == 4) {
    if (needs_reordered(matrix)) {
      constexpr bool is_affine = P == Packing::affine4;
      const float* x = rows.reordered + std::ptrdiff_t(row) * matrix.width;
      for (; at + C <= end; at += C)
        multiply_words_tile<is_affine, R, C>(matrix, at, x, sums, y + at - first, stride);
      for (; at < end; ++at)
        multiply_words_tile<is_affine, R, 1>(matrix, at, x, sums, y + at - first, stride);
      return;
    }
  }
  const float* x = rows.x + row * rows.stride;
  for (; at + C <= end; at += C)
    multiply_packed_tile<P, R, C>(matrix, at, x, rows.stride, sums, y + at - first, stride);
  for (; at < end; ++at)
    multiply_packed_tile<P, R, 1>(matrix, at, x, rows.stride, sums, y + at - first, stride);
}

template <Packing P>
void multiply_packed(const Matrix& matrix, const Rows& rows, int first, int end, float* y,
                     std::ptrdiff_t stride) {
  constexpr int part = 16; // rows that stay in a cache while all rows of activations use them
  for (int start = first; start < end; start += part) {
    int stop = start + part < end ? start + part : end;
    for (int r = 0; r < rows.count; r += tile) {
      float* to = y + r * stride + start - first;
      switch (rows.count - r) {
        case 1:
          multiply_packed_rows<P, 1>(matrix, rows, r, start, stop, to, stride);
          break;
        case 2:
          multiply_packed_rows<P, 2>(matrix, rows, r, start, stop, to, stride);
          break;
        case 3:
          multiply_packed_rows<P, 3>(matrix, rows, r, start, stop, to, stride);
          break;
        default:
          multiply_packed_rows<P, 4>(matrix, rows, r, start, stop, to, stride);
      }
    }
  }
}

// Calls `use` with the packing of a quantised matrix as a type.
template <Packing P>
struct Of {
  static constexpr Packing packing = P;
};
template <typename Use>
INLINE void with_packing(const Matrix& matrix, Use use) {
  switch (matrix.number) {
    case Number::mxfp4:
    case Number::nvfp4:
      return use(Of<Packing::e2m1>{});
    case Number::mxfp8:
      return use(Of<Packing::e4m3>{});
    default:
      break;
  }
  switch (matrix.bits) {
    case 2:
      return use(Of<Packing::affine2>{});
    case 3:
      return use(Of<Packing::affine3>{});
    case 4:
      return use(Of<Packing::affine4>{});
    case 5:
      return use(Of<Packing::affine5>{});
    case 6:
      return use(Of<Packing::affine6>{});
    default:
      return use(Of<Packing::affine8>{});
  }
}

inline void group_sums(const float* x, int width, int group, float* sums) {
  int count = width / group;
  for (int g = 0; g < count; ++g, x += group) {
    Floats total = zero();
    for (int i = 0; i < group; i += lanes) total = add(total, load(x + i));
    sums[g] = sum(total);
  }
  for (int g = count; g < padded_groups(count); ++g) sums[g] = 0;
}
} // namespace KERNELS
