// Tests of the native kernels against plain loops in double precision, for all kernels that the
// processor has. run.sh runs them with and without sanitizers.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "../linux_x86_64/attention.hpp"
#include "../linux_x86_64/blas.hpp"
#include "../linux_x86_64/linear.hpp"

namespace {
int failures = 0;

void expect(bool holds, const std::string& what) {
  if (holds) return;
  ++failures;
  std::printf("failed: %s\n", what.c_str());
}

std::mt19937 generator(7);
float random_number() { return std::normal_distribution<float>()(generator); }
std::vector<float> random_numbers(std::size_t count) {
  std::vector<float> numbers(count);
  for (float& x : numbers) x = random_number();
  return numbers;
}

std::uint16_t to_bfloat16(float x) {
  std::uint32_t bits;
  std::memcpy(&bits, &x, 4);
  return std::uint16_t((bits + 0x7fff + ((bits >> 16) & 1)) >> 16);
}
float of_bfloat16(std::uint16_t x) {
  std::uint32_t bits = std::uint32_t(x) << 16;
  float value;
  std::memcpy(&value, &bits, 4);
  return value;
}

// A matrix, the memory of its parts (of the exact size, so that a sanitizer finds a read outside),
// and its values.
struct Example {
  Matrix matrix;
  std::vector<std::uint8_t> values, scales, biases;
  std::vector<double> exact;
};

template <typename T>
std::vector<std::uint8_t> bytes_of(const std::vector<T>& values) {
  auto first = reinterpret_cast<const std::uint8_t*>(values.data());
  return {first, first + values.size() * sizeof(T)};
}

double e2m1(int i) {
  constexpr double magnitudes[]{0, 0.5, 1, 1.5, 2, 3, 4, 6};
  return i < 8 ? magnitudes[i] : -magnitudes[i - 8];
}
double e4m3(int i) {
  int exponent = (i >> 3) & 15, fraction = i & 7;
  double magnitude =
      exponent == 0 ? std::ldexp(fraction, -9) : std::ldexp(8 + fraction, exponent - 10);
  return i < 128 ? magnitude : -magnitude;
}

Example example(Number number, int bits, int group, Number scale, int rows, int width) {
  Example e{{number, rows, width, nullptr, bits, group, nullptr, nullptr, scale}, {}, {}, {}, {}};
  std::size_t count = std::size_t(rows) * width;
  if (number == Number::float32) {
    std::vector<float> w = random_numbers(count);
    e.exact.assign(w.begin(), w.end());
    e.values = bytes_of(w);
  } else if (number == Number::bfloat16 || number == Number::float16) {
    std::vector<std::uint16_t> w(count);
    for (auto& x : w) {
      if (number == Number::bfloat16) {
        x = to_bfloat16(random_number());
        e.exact.push_back(of_bfloat16(x));
      } else {
        x = std::uint16_t(generator() % 2 << 15 |
                          generator() % 0x4400); // up to 4, subnormals included
        double fraction = x & 1023;
        int exponent = (x >> 10) & 31;
        double magnitude =
            exponent == 0 ? std::ldexp(fraction, -24) : std::ldexp(1024 + fraction, exponent - 25);
        e.exact.push_back(x >> 15 ? -magnitude : magnitude);
      }
    }
    e.values = bytes_of(w);
  } else {
    e.values.resize(count * bits / 8);
    std::vector<int> numbers(count);
    for (std::size_t i = 0; i < count; ++i) {
      int most = 1 << bits;
      do numbers[i] = int(generator() % most);
      while (number == Number::mxfp8 && (numbers[i] & 127) == 127);
      for (int bit = 0; bit < bits; ++bit) {
        std::size_t at = i * bits + bit;
        e.values[at / 8] |= ((numbers[i] >> bit) & 1) << (at % 8);
      }
    }
    std::size_t groups = count / group;
    std::vector<double> s(groups), b(groups, 0.0);
    if (number == Number::affine) {
      std::vector<float> fs, fb;
      std::vector<std::uint16_t> hs, hb;
      for (std::size_t g = 0; g < groups; ++g) {
        hs.push_back(to_bfloat16(random_number() * 0.02f));
        hb.push_back(to_bfloat16(random_number() * 0.1f));
        fs.push_back(random_number() * 0.02f);
        fb.push_back(random_number() * 0.1f);
        bool is_half = scale == Number::bfloat16;
        s[g] = is_half ? of_bfloat16(hs[g]) : fs[g];
        b[g] = is_half ? of_bfloat16(hb[g]) : fb[g];
      }
      e.scales = scale == Number::bfloat16 ? bytes_of(hs) : bytes_of(fs);
      e.biases = scale == Number::bfloat16 ? bytes_of(hb) : bytes_of(fb);
    } else {
      for (std::size_t g = 0; g < groups; ++g) {
        int code = number == Number::nvfp4 ? int(generator() % 120) : 115 + int(generator() % 12);
        e.scales.push_back(std::uint8_t(code));
        s[g] = number == Number::nvfp4 ? e4m3(code) : std::ldexp(1.0, code - 127);
      }
    }
    for (std::size_t i = 0; i < count; ++i) {
      double q = number == Number::affine  ? numbers[i]
                 : number == Number::mxfp8 ? e4m3(numbers[i])
                                           : e2m1(numbers[i]);
      e.exact.push_back(q * s[i / group] + b[i / group]);
    }
  }
  return e;
}

Matrix matrix_of(const Example& e) {
  Matrix matrix = e.matrix;
  matrix.values = e.values.data();
  matrix.scales = e.scales.data();
  matrix.biases = e.biases.data();
  return matrix;
}

double silu(double x) { return x / (1 + std::exp(-x)); }

// The error of `y`, in units of what f32 sums of these terms may have.
void check_product(const Example& e, int count, bool normed, int after, const std::string& what) {
  Linear linear{matrix_of(e)};
  int width = e.matrix.width, rows = e.matrix.rows;
  std::vector<float> x = random_numbers(std::size_t(count) * width), norm = random_numbers(width);
  // Tiny and huge numbers, and zeros.
  for (int r = 0; r < count; ++r)
    for (int i = 0; i < width; ++i) {
      float& number = x[std::size_t(r) * width + i];
      int part = i / 32 % 5;
      number = part == 1 ? 0 : part == 2 ? number * 1e-36f : part == 3 ? number * 1e4f : number;
    }
  if (normed) linear.norm = norm.data(), linear.eps = 1e-6f;
  linear.swiglu = after == 2;
  int outputs = linear.outputs();
  std::vector<float> residual = random_numbers(std::size_t(count) * outputs),
                     y(residual.size(), NAN);
  if (after == 1) linear.residual = residual.data();
  linear.forward(x.data(), count, y.data());
  double worst = 0;
  for (int r = 0; r < count; ++r) {
    std::vector<double> in(x.begin() + std::ptrdiff_t(r) * width,
                           x.begin() + std::ptrdiff_t(r + 1) * width);
    if (normed) {
      double squares = 0;
      for (double v : in) squares += v * v;
      for (int i = 0; i < width; ++i) in[i] *= norm[i] / std::sqrt(squares / width + 1e-6);
    }
    std::vector<double> product(rows), size(rows);
    for (int n = 0; n < rows; ++n)
      for (int i = 0; i < width; ++i) {
        product[n] += in[i] * e.exact[std::size_t(n) * width + i];
        size[n] += std::fabs(in[i] * e.exact[std::size_t(n) * width + i]);
      }
    for (int n = 0; n < outputs; ++n) {
      double expected = product[n], scale = size[n];
      if (after == 1) {
        expected += residual[std::size_t(r) * outputs + n];
        scale += std::fabs(residual[std::size_t(r) * outputs + n]);
      }
      if (after == 2) {
        scale = size[n] * (std::fabs(product[n + outputs]) + 1) +
                size[n + outputs] * (std::fabs(product[n]) + 1);
        expected = silu(product[n]) * product[n + outputs];
      }
      worst =
          std::fmax(worst, std::fabs(y[std::size_t(r) * outputs + n] - expected) / (scale + 1e-6));
      if (std::isnan(y[std::size_t(r) * outputs + n])) worst = INFINITY;
    }
  }
  expect(worst < 4e-6,
         what + ", " + std::to_string(count) + " rows: error " + std::to_string(worst));
}

void test_products() {
  struct Format {
    const char* name;
    Number number;
    int bits, group;
    Number scale;
  };
  std::vector<Format> formats{
      {"f32", Number::float32, 0, 0, {}},   {"f16", Number::float16, 0, 0, {}},
      {"bf16", Number::bfloat16, 0, 0, {}}, {"mxfp4", Number::mxfp4, 4, 32, {}},
      {"mxfp8", Number::mxfp8, 8, 32, {}},  {"nvfp4", Number::nvfp4, 4, 16, {}}};
  for (int bits : {2, 3, 4, 5, 6, 8})
    for (int group : {32, 64, 128}) {
      formats.push_back({"affine", Number::affine, bits, group, Number::bfloat16});
      if (group == 64)
        formats.push_back({"affine, f32 scales", Number::affine, bits, group, Number::float32});
    }
  for (const Format& f : formats) {
    bool is_dense = f.group == 0;
    for (int width : {f.group == 0 ? 7 : f.group, 128, 384, is_dense ? 333 : 640}) {
      if (!is_dense && width % f.group != 0) continue;
      for (int rows : {2, 18, 300}) {
        Example e = example(f.number, f.bits, f.group, f.scale, rows, width);
        std::string what = std::string(f.name) + " of " + std::to_string(f.bits) + " bits in " +
                           std::to_string(f.group) + ", " + std::to_string(rows) + " by " +
                           std::to_string(width);
        int after = 0;
        for (int count : {1, 2, 3, 5, 16, 17, 40})
          check_product(e, count, count % 2 == 0, after++ % 3, what);
        // Rows do not depend on each other.
        Linear linear{matrix_of(e)};
        std::vector<float> x = random_numbers(16 * std::size_t(width)), all(16 * std::size_t(rows));
        linear.forward(x.data(), 16, all.data());
        // One row alone with 4 bits is multiplied in integers.
        int alone = kernels->has_digits(linear.matrix) ? 2 : 1;
        std::vector<float> some(std::size_t(alone) * rows);
        for (int r : {0, 7, 14}) {
          linear.forward(x.data() + r * width, alone, some.data());
          expect(std::equal(some.begin(), some.end(), all.begin() + r * rows),
                 what + ": a row depends on others");
        }
        for (float number : {std::numeric_limits<float>::quiet_NaN(), INFINITY}) {
          x[3] = number;
          linear.forward(x.data(), 2, all.data());
          expect(!std::isfinite(all[0]) && std::isfinite(all[rows]), what + ": NaN or infinity");
          linear.forward(x.data(), 1, all.data());
          expect(!std::isfinite(all[0]), what + ": NaN or infinity alone");
        }
        // The gradient.
        int count = 3;
        std::vector<float> y = random_numbers(std::size_t(count) * rows),
                           back(std::size_t(count) * width);
        linear.backward(y.data(), count, back.data());
        double worst = 0;
        for (int r = 0; r < count; ++r)
          for (int i = 0; i < width; ++i) {
            double sum = 0, size = 0;
            for (int n = 0; n < rows; ++n) {
              sum += y[std::size_t(r) * rows + n] * e.exact[std::size_t(n) * width + i];
              size += std::fabs(y[std::size_t(r) * rows + n] * e.exact[std::size_t(n) * width + i]);
            }
            worst =
                std::fmax(worst, std::fabs(back[std::size_t(r) * width + i] - sum) / (size + 1e-6));
          }
        expect(worst < 4e-6, what + ": error of the gradient " + std::to_string(worst));
      }
    }
  }
}

void test_attention() {
  for (int dim : {2, 10, 16, 64, 128})
    for (auto [queries, keys] : {std::pair{1, 1}, {4, 2}, {12, 3}, {70, 1}}) {
      for (bool normed : {false, true}) {
        struct Case {
          std::vector<int> offsets, tokens;
        };
        for (const Case& c : {Case{{0}, {1}}, Case{{5}, {1}}, Case{{0}, {70}}, Case{{130}, {3}},
                              Case{{63, 0, 200}, {1, 9, 2}}}) {
          std::vector<float> query_norm = random_numbers(dim), key_norm = random_numbers(dim);
          Heads heads{queries,
                      keys,
                      dim,
                      normed ? query_norm.data() : nullptr,
                      normed ? key_norm.data() : nullptr,
                      1e-6f,
                      1 / std::sqrt(float(dim))};
          int all = 0;
          std::vector<Sequence> sequences;
          std::vector<std::vector<float>> memory;
          memory.reserve(2 * c.offsets.size());
          for (std::size_t s = 0; s < c.offsets.size(); ++s) {
            int capacity = c.offsets[s] + c.tokens[s];
            for (int part = 0; part < 2; ++part)
              memory.push_back(random_numbers(std::size_t(keys) * capacity * dim));
            sequences.push_back({c.offsets[s], c.tokens[s], memory[2 * s].data(),
                                 memory[2 * s + 1].data(), capacity});
            all += c.tokens[s];
          }
          std::vector<float> qkv = random_numbers(std::size_t(all) * heads.all() * dim);
          std::vector<float> cosines = random_numbers(std::size_t(all) * (dim / 2)),
                             sines = random_numbers(cosines.size());
          std::vector<float> y(std::size_t(all) * queries * dim, NAN);
          Attention(heads, sequences).forward(qkv.data(), cosines.data(), sines.data(), y.data());
          auto rotated = [&](int token, int head, const std::vector<float>& norm) {
            std::vector<double> x(dim), to(dim);
            double squares = 0;
            for (int d = 0; d < dim; ++d) {
              x[d] = qkv[(std::size_t(token) * heads.all() + head) * dim + d];
              squares += x[d] * x[d];
            }
            if (normed)
              for (int d = 0; d < dim; ++d) x[d] *= norm[d] / std::sqrt(squares / dim + 1e-6);
            for (int d = 0; d < dim / 2; ++d) {
              double cosine = cosines[token * (dim / 2) + d], sine = sines[token * (dim / 2) + d];
              to[d] = x[d] * cosine - x[d + dim / 2] * sine;
              to[d + dim / 2] = x[d + dim / 2] * cosine + x[d] * sine;
            }
            return to;
          };
          double worst = 0;
          int token = 0;
          for (const Sequence& s : sequences)
            for (int i = 0; i < s.tokens; ++i, ++token) {
              for (int head = 0; head < keys; ++head) {
                std::vector<double> key = rotated(token, queries + head, key_norm);
                for (int d = 0; d < dim; ++d) {
                  std::size_t at = (std::size_t(head) * s.capacity + s.offset + i) * dim + d;
                  worst =
                      std::fmax(worst, std::fabs(s.keys[at] - key[d]) / (1 + std::fabs(key[d])));
                  expect(
                      s.values[at] ==
                          qkv[(std::size_t(token) * heads.all() + queries + keys + head) * dim + d],
                      "a value");
                }
              }
              for (int head = 0; head < queries; ++head) {
                std::vector<double> query = rotated(token, head, query_norm), sum(dim);
                int of = head / heads.group();
                double largest = -INFINITY, total = 0;
                std::vector<double> scores;
                for (int t = 0; t <= s.offset + i; ++t) {
                  double score = 0;
                  for (int d = 0; d < dim; ++d)
                    score += query[d] * s.keys[(std::size_t(of) * s.capacity + t) * dim + d];
                  scores.push_back(score * heads.scale);
                  largest = std::fmax(largest, scores.back());
                }
                for (int t = 0; t <= s.offset + i; ++t) {
                  double weight = std::exp(scores[t] - largest);
                  total += weight;
                  for (int d = 0; d < dim; ++d)
                    sum[d] += weight * s.values[(std::size_t(of) * s.capacity + t) * dim + d];
                }
                for (int d = 0; d < dim; ++d) {
                  double found = y[(std::size_t(token) * queries + head) * dim + d];
                  double error = std::fabs(found - sum[d] / total) / (1 + std::fabs(largest));
                  worst = std::fmax(worst, std::isnan(found) ? INFINITY : error);
                }
              }
            }
          expect(worst < 5e-6, "attention, width " + std::to_string(dim) + ", " +
                                   std::to_string(queries) + " and " + std::to_string(keys) +
                                   " heads, " + std::to_string(sequences.size()) +
                                   " sequences: error " + std::to_string(worst));
        }
      }
    }
}

void test_expand() {
  for (int bits : {2, 3, 4, 5, 6, 8}) {
    Example e = example(Number::affine, bits, 32, Number::float32, 5, 96);
    Matrix matrix = matrix_of(e);
    for (int n = 0; n < 5; ++n) {
      std::vector<float> row(96);
      kernels->expand(matrix, n, row.data());
      for (int i = 0; i < 96; ++i)
        expect(
            std::fabs(row[i] - e.exact[n * 96 + i]) <= 1e-6 * (1 + std::fabs(e.exact[n * 96 + i])),
            "an expanded number");
    }
  }
}

void test_swiglu() {
  std::vector<float> gate, up;
  for (double x = -120; x < 120; x += 0.37) gate.push_back(float(x)), up.push_back(1.5f);
  std::vector<float> y(gate.size());
  kernels->swiglu(gate.data(), up.data(), int(gate.size()), y.data());
  for (std::size_t i = 0; i < y.size(); ++i) {
    double exact = 1.5 * silu(gate[i]);
    expect(std::fabs(y[i] - exact) <= 3e-7 * std::fabs(exact) + 1e-35,
           "SwiGLU of " + std::to_string(gate[i]));
  }
}

// Exactly allocated, so that an access after the last number is found.
void test_softmax() {
  for (int count : {1, 7, 16, 37, 1000}) {
    std::vector<float> x = random_numbers(count), y(count);
    for (float& number : x) number *= 40;
    float most, total;
    kernels->softmax(x.data(), count, y.data(), &most, &total);
    double exact = 0;
    for (float number : x) exact += std::exp(double(number) - most);
    expect(most == *std::max_element(x.begin(), x.end()), "the largest number");
    expect(std::fabs(total - exact) <= 1e-6 * exact, "the sum of a softmax");
    for (int i = 0; i < count; ++i) {
      double below = double(most) - x[i], probability = std::exp(-below) / exact;
      // The difference is rounded before the exponential.
      double bound = (2e-6 + 1e-7 * below) * probability + 1e-35;
      expect(std::fabs(y[i] - probability) <= bound, "the softmax of " + std::to_string(x[i]));
    }
  }
}
} // namespace

// A hash of the bytes of products and attention: the same for any number of threads.
std::uint64_t hash_of_results() {
  std::uint64_t hash = 14695981039346656037u;
  auto add = [&](const std::vector<float>& values) {
    for (std::uint8_t byte : bytes_of(values)) hash = (hash ^ byte) * 1099511628211u;
  };
  for (Number number : {Number::float32, Number::bfloat16, Number::affine}) {
    Example e = example(number, 4, 64, Number::bfloat16, 1000, 640);
    Linear linear{matrix_of(e)};
    for (int count : {1, 7, 90}) {
      std::vector<float> x = random_numbers(std::size_t(count) * 640), y(std::size_t(count) * 1000);
      linear.forward(x.data(), count, y.data());
      add(y);
      linear.backward(y.data(), count, x.data());
      add(x);
    }
  }
  Heads heads{8, 2, 64, nullptr, nullptr, 0, 0.125f};
  for (int tokens : {1, 90}) {
    std::vector<float> keys = random_numbers(2 * 300 * 64), values = random_numbers(keys.size());
    std::vector<Sequence> sequences{{210, tokens, keys.data(), values.data(), 300}};
    std::vector<float> qkv = random_numbers(std::size_t(tokens) * 12 * 64);
    std::vector<float> cosines = random_numbers(std::size_t(tokens) * 32), sines = cosines;
    std::vector<float> y(std::size_t(tokens) * 8 * 64);
    Attention(heads, sequences).forward(qkv.data(), cosines.data(), sines.data(), y.data());
    add(y);
  }
  return hash;
}

// Where the processor lacks the kernels that OPENELM_KERNELS names, this tests others.
int main(int argc, char**) {
  if (kernels == nullptr) {
    std::printf("the processor has no kernels\n");
    return 0;
  }
  std::printf("results %016llx\n", static_cast<unsigned long long>(hash_of_results()));
  if (argc > 1) return 0; // the hash alone
  test_expand();
  test_swiglu();
  test_softmax();
  test_attention();
  test_products();
  std::printf("%s: %d failures\n", kernels == &avx2_kernels ? "AVX2" : "AVX-512", failures);
  return failures != 0;
}
