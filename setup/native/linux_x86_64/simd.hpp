// Vectors of floats, in the widest registers of the instruction set that KERNELS names. The
// including file selects that set before this header.
#pragma once
#include <immintrin.h>

#include <cstdint>
#include <cstring>

#define INLINE [[gnu::always_inline]] inline

namespace KERNELS {
#if VECTOR_BITS == 512
using Floats = __m512;
using Ints = __m512i;
constexpr int lanes = 16;

INLINE Floats zero() { return _mm512_setzero_ps(); }
INLINE Floats all(float x) { return _mm512_set1_ps(x); }
INLINE Floats load(const float* from) { return _mm512_loadu_ps(from); }
INLINE void store(float* to, Floats x) { _mm512_storeu_ps(to, x); }
INLINE Floats add(Floats x, Floats y) { return _mm512_add_ps(x, y); }
INLINE Floats subtract(Floats x, Floats y) { return _mm512_sub_ps(x, y); }
INLINE Floats multiply(Floats x, Floats y) { return _mm512_mul_ps(x, y); }
INLINE Floats divide(Floats x, Floats y) { return _mm512_div_ps(x, y); }
INLINE Floats add_product(Floats sum, Floats x, Floats y) { return _mm512_fmadd_ps(x, y, sum); }
// Returns `y` if either is NaN.
INLINE Floats larger(Floats x, Floats y) { return _mm512_max_ps(x, y); }
INLINE Floats smaller(Floats x, Floats y) { return _mm512_min_ps(x, y); }
INLINE float sum(Floats x) { return _mm512_reduce_add_ps(x); }
INLINE float largest(Floats x) { return _mm512_reduce_max_ps(x); }
INLINE Floats rounded(Floats x) {
  return _mm512_roundscale_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
// 2^n for integers n from -126 to 127.
INLINE Floats power_of_two(Floats n) {
  Ints exponent = _mm512_add_epi32(_mm512_cvtps_epi32(n), _mm512_set1_epi32(127));
  return _mm512_castsi512_ps(_mm512_slli_epi32(exponent, 23));
}
INLINE Floats load_bfloat16(const std::uint16_t* from) {
  Ints wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
INLINE Floats load_float16(const std::uint16_t* from) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(from)));
}
INLINE Ints load_ints(const void* from) { return _mm512_loadu_si512(from); }
INLINE Ints shifted_right(Ints x, int bits) { return _mm512_srli_epi32(x, bits); }
INLINE Ints each_shifted_right(Ints x, Ints bits) { return _mm512_srlv_epi32(x, bits); }
INLINE Ints masked(Ints x, int mask) { return _mm512_and_si512(x, _mm512_set1_epi32(mask)); }
INLINE Ints all_ints(int x) { return _mm512_set1_epi32(x); }
INLINE Floats to_floats(Ints x) { return _mm512_cvtepi32_ps(x); }
// Numbers with 4 bits of exponent and 3 of fraction, as MLX reads them: 127 is 480.
INLINE Floats of_e4m3(Ints x) {
  Ints magnitude = _mm512_slli_epi32(masked(x, 127), 20),
       sign = _mm512_slli_epi32(masked(x, 128), 24);
  Floats value = multiply(_mm512_castsi512_ps(magnitude), all(0x1p120f)); // exponents differ by 120
  return _mm512_castsi512_ps(_mm512_or_si512(_mm512_castps_si512(value), sign));
}
// Values of `x`, which has 16 lanes, by the lowest four bits of `at`.
INLINE Floats permuted(Floats x, Ints at) { return _mm512_permutexvar_ps(at, x); }
// 16 bytes in each quarter, and their bytes by the numbers in `order`.
INLINE Ints bytes_of(const void* from, Ints order) {
  __m128i bytes = _mm_loadu_si128(static_cast<const __m128i*>(from));
  return _mm512_shuffle_epi8(_mm512_broadcast_i32x4(bytes), order);
}
#else
using Floats = __m256;
using Ints = __m256i;
constexpr int lanes = 8;

INLINE Floats zero() { return _mm256_setzero_ps(); }
INLINE Floats all(float x) { return _mm256_set1_ps(x); }
INLINE Floats load(const float* from) { return _mm256_loadu_ps(from); }
INLINE void store(float* to, Floats x) { _mm256_storeu_ps(to, x); }
INLINE Floats add(Floats x, Floats y) { return _mm256_add_ps(x, y); }
INLINE Floats subtract(Floats x, Floats y) { return _mm256_sub_ps(x, y); }
INLINE Floats multiply(Floats x, Floats y) { return _mm256_mul_ps(x, y); }
INLINE Floats divide(Floats x, Floats y) { return _mm256_div_ps(x, y); }
INLINE Floats add_product(Floats sum, Floats x, Floats y) { return _mm256_fmadd_ps(x, y, sum); }
INLINE Floats larger(Floats x, Floats y) { return _mm256_max_ps(x, y); }
INLINE Floats smaller(Floats x, Floats y) { return _mm256_min_ps(x, y); }
INLINE float sum(Floats x) {
  __m128 half = _mm_add_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(half, _mm_movehdup_ps(half)));
}
INLINE float largest(Floats x) {
  __m128 half = _mm_max_ps(_mm256_castps256_ps128(x), _mm256_extractf128_ps(x, 1));
  half = _mm_max_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_max_ss(half, _mm_movehdup_ps(half)));
}
INLINE Floats rounded(Floats x) {
  return _mm256_round_ps(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
INLINE Floats power_of_two(Floats n) {
  Ints exponent = _mm256_add_epi32(_mm256_cvtps_epi32(n), _mm256_set1_epi32(127));
  return _mm256_castsi256_ps(_mm256_slli_epi32(exponent, 23));
}
INLINE Floats load_bfloat16(const std::uint16_t* from) {
  Ints wide = _mm256_cvtepu16_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
INLINE Floats load_float16(const std::uint16_t* from) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}
INLINE Ints load_ints(const void* from) {
  return _mm256_loadu_si256(static_cast<const Ints*>(from));
}
INLINE Ints shifted_right(Ints x, int bits) { return _mm256_srli_epi32(x, bits); }
INLINE Ints each_shifted_right(Ints x, Ints bits) { return _mm256_srlv_epi32(x, bits); }
INLINE Ints masked(Ints x, int mask) { return _mm256_and_si256(x, _mm256_set1_epi32(mask)); }
INLINE Ints all_ints(int x) { return _mm256_set1_epi32(x); }
INLINE Ints add_ints(Ints x, Ints y) { return _mm256_add_epi32(x, y); }
INLINE Ints either(Ints x, Ints y) { return _mm256_or_si256(x, y); }
INLINE Ints shifted_left(Ints x, int bits) { return _mm256_slli_epi32(x, bits); }
INLINE Ints shifted_right_signed(Ints x, int bits) { return _mm256_srai_epi32(x, bits); }
INLINE void store_ints(void* to, Ints x) { _mm256_storeu_si256(static_cast<Ints*>(to), x); }
// To the nearest.
INLINE Ints to_ints(Floats x) { return _mm256_cvtps_epi32(x); }
// x0 · y0 + x1 · y1 of each four bytes: `x` has numbers from 0 to 15, and `y` signed ones.
INLINE Ints dot_bytes(Ints x0, Ints y0, Ints x1, Ints y1) {
  Ints pairs = _mm256_add_epi16(_mm256_maddubs_epi16(x0, y0), _mm256_maddubs_epi16(x1, y1));
  return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
INLINE Floats to_floats(Ints x) { return _mm256_cvtepi32_ps(x); }
INLINE Floats of_e4m3(Ints x) {
  Ints magnitude = _mm256_slli_epi32(masked(x, 127), 20),
       sign = _mm256_slli_epi32(masked(x, 128), 24);
  Floats value = multiply(_mm256_castsi256_ps(magnitude), all(0x1p120f));
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_castps_si256(value), sign));
}
// Values of `x`, which has 8 lanes, by the lowest three bits of `at`.
INLINE Floats permuted(Floats x, Ints at) { return _mm256_permutevar8x32_ps(x, at); }
// 8 bytes in each half, and their bytes by the numbers in `order`.
INLINE Ints bytes_of(const void* from, Ints order) {
  std::int64_t bytes;
  std::memcpy(&bytes, from, sizeof bytes);
  return _mm256_shuffle_epi8(_mm256_set1_epi64x(bytes), order);
}
#endif

// e^x, within 2 units of the last place; e^-87.3 below that, and at most e^88.
INLINE Floats exponential(Floats x) {
  x = smaller(all(88.0f), larger(all(-87.3f), x)); // NaN stays
  Floats n = rounded(multiply(x, all(0x1.715476p+0f)));
  // ln 2 in two parts: `n` times the first one is exact.
  Floats r = add_product(x, n, all(-0x1.62e4p-1f));
  r = add_product(r, n, all(-0x1.7f7d1cp-20f));
  Floats y = all(1.0f / 5040);
  for (float term : {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 1.0f / 2, 1.0f, 1.0f})
    y = add_product(all(term), y, r);
  return multiply(y, power_of_two(n));
}
} // namespace KERNELS
