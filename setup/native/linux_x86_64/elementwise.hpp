// RMSNorm, SwiGLU and the rotation of queries and keys.
#pragma once
#include "kernels.hpp"
#include "simd.hpp"

namespace KERNELS {
inline void rms_norm(const float* x, const float* weight, float eps, int width, float* y) {
  Floats squares = zero();
  int i = 0;
  for (; i + lanes <= width; i += lanes) squares = add_product(squares, load(x + i), load(x + i));
  float total = sum(squares);
  for (int k = i; k < width; ++k) total += x[k] * x[k];
  float factor = 1 / __builtin_sqrtf(total / float(width) + eps);
  for (i = 0; i + lanes <= width; i += lanes)
    store(y + i, multiply(multiply(load(x + i), all(factor)), load(weight + i)));
  for (; i < width; ++i) y[i] = x[i] * factor * weight[i];
}

INLINE Floats silu(Floats x) { return divide(x, add(all(1), exponential(subtract(zero(), x)))); }

inline void swiglu(const float* gate, const float* up, int count, float* y) {
  int i = 0;
  for (; i + lanes <= count; i += lanes) store(y + i, multiply(silu(load(gate + i)), load(up + i)));
  if (i == count) return;
  float g[lanes]{}, u[lanes]{}, product[lanes];
  for (int k = i; k < count; ++k) g[k - i] = gate[k], u[k - i] = up[k];
  store(product, multiply(silu(load(g)), load(u)));
  for (int k = i; k < count; ++k) y[k] = product[k - i];
}

inline void rotate(const float* x, const float* norm, float eps, const float* cosines,
                   const float* sines, int heads, int head_dim, float factor, float* to,
                   std::ptrdiff_t stride) {
  int half = head_dim / 2;
  float normed[most_head_dim];
  for (int head = 0; head < heads; ++head, x += head_dim, to += stride) {
    const float* from = x;
    if (norm != nullptr) {
      rms_norm(x, norm, eps, head_dim, normed);
      from = normed;
    }
    int i = 0;
    for (; i + lanes <= half; i += lanes) {
      Floats left = multiply(load(from + i), all(factor)),
             right = multiply(load(from + half + i), all(factor));
      Floats cosine = load(cosines + i), sine = load(sines + i);
      store(to + i, subtract(multiply(left, cosine), multiply(right, sine)));
      store(to + half + i, add(multiply(right, cosine), multiply(left, sine)));
    }
    for (; i < half; ++i) {
      float left = from[i] * factor, right = from[half + i] * factor;
      to[i] = left * cosines[i] - right * sines[i];
      to[half + i] = right * cosines[i] + left * sines[i];
    }
  }
}
} // namespace KERNELS
