// RMSNorm, SwiGLU, softmax, and the rotation of queries and keys.
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

// The gradient of x, and that of the weight, which is added to `dw`: with n = x / rms(x),
// dx = (w · dy - n · mean(n · w · dy)) / rms(x), and dw = n · dy.
inline void rms_norm_gradient(const float* x, const float* weight, float eps, int width,
                              const float* dy, float* dx, float* dw) {
  Floats squares = zero(), products = zero();
  int i = 0;
  for (; i + lanes <= width; i += lanes) {
    Floats number = load(x + i);
    squares = add_product(squares, number, number);
    products = add_product(products, number, multiply(load(weight + i), load(dy + i)));
  }
  float square = sum(squares), product = sum(products);
  for (int k = i; k < width; ++k) {
    square += x[k] * x[k];
    product += x[k] * weight[k] * dy[k];
  }
  float factor = 1 / __builtin_sqrtf(square / float(width) + eps);
  float of_x = product / float(width) * factor * factor * factor;
  for (i = 0; i + lanes <= width; i += lanes) {
    Floats number = load(x + i), change = load(dy + i);
    Floats scaled = multiply(multiply(load(weight + i), change), all(factor));
    store(dx + i, subtract(scaled, multiply(number, all(of_x))));
    store(dw + i, add_product(load(dw + i), multiply(number, all(factor)), change));
  }
  for (; i < width; ++i) {
    dx[i] = weight[i] * dy[i] * factor - x[i] * of_x;
    dw[i] += x[i] * factor * dy[i];
  }
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

// With s = sigmoid(gate): d(gate) = up · s · (1 + gate · (1 - s)), and d(up) = gate · s.
INLINE void swiglu_gradient_of(Floats gate, Floats up, Floats dy, float* dgate, float* dup) {
  Floats one = all(1), s = divide(one, add(one, exponential(subtract(zero(), gate))));
  Floats slope = multiply(s, add_product(one, gate, subtract(one, s)));
  store(dgate, multiply(dy, multiply(up, slope)));
  store(dup, multiply(dy, multiply(gate, s)));
}

inline void swiglu_gradient(const float* gate, const float* up, const float* dy, int count,
                            float* dgate, float* dup) {
  int i = 0;
  for (; i + lanes <= count; i += lanes)
    swiglu_gradient_of(load(gate + i), load(up + i), load(dy + i), dgate + i, dup + i);
  if (i == count) return;
  float g[lanes]{}, u[lanes]{}, d[lanes]{}, of_g[lanes], of_u[lanes];
  for (int k = i; k < count; ++k) g[k - i] = gate[k], u[k - i] = up[k], d[k - i] = dy[k];
  swiglu_gradient_of(load(g), load(u), load(d), of_g, of_u);
  for (int k = i; k < count; ++k) dgate[k] = of_g[k - i], dup[k] = of_u[k - i];
}

// Fills up with `other` the numbers of a vector after the first `count`.
INLINE Floats load_first(const float* x, int count, float other) {
  float numbers[lanes];
  for (int i = 0; i < lanes; ++i) numbers[i] = i < count ? x[i] : other;
  return load(numbers);
}

inline void softmax(const float* x, int count, float* y, float* most, float* total) {
  Floats peaks = all(-__builtin_inff()), sums = zero();
  int i = 0;
  for (; i + lanes <= count; i += lanes) peaks = larger(load(x + i), peaks);
  if (i < count) peaks = larger(load_first(x + i, count - i, -__builtin_inff()), peaks);
  float peak = largest(peaks);
  for (i = 0; i + lanes <= count; i += lanes) {
    Floats weight = exponential(subtract(load(x + i), all(peak)));
    store(y + i, weight);
    sums = add(sums, weight);
  }
  float sum_of_all = sum(sums);
  if (i < count) {
    float rest[lanes];
    store(rest, exponential(subtract(load_first(x + i, count - i, peak), all(peak))));
    for (int k = i; k < count; ++k) sum_of_all += y[k] = rest[k - i];
  }
  float factor = 1 / sum_of_all;
  for (i = 0; i + lanes <= count; i += lanes) store(y + i, multiply(load(y + i), all(factor)));
  for (; i < count; ++i) y[i] *= factor;
  *most = peak;
  *total = sum_of_all;
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
