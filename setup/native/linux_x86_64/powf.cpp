// Powers. MLX's `power` calls this per element, thousands of times with one base: attention and
// SwiGLU use it for exponentials. The C library computes the base's logarithm every time, half of
// its cost. As in the C library, the computation is in double precision and rounded once, within
// 0.51 units of the last place.

#include <array>
#include <cmath>
#include <cstdint>
#include <cstring>

namespace {
constexpr int steps = 32;
constexpr int step_bits = 5;

// 2^(i / steps), minus the amount that adding i to the lower bits of a double adds.
const auto fractions = [] {
  std::array<std::uint64_t, steps> table;
  for (int i = 0; i < steps; ++i) {
    double value = std::exp2(double(i) / steps);
    std::memcpy(&table[i], &value, sizeof value);
    table[i] -= std::uint64_t(i) << (52 - step_bits);
  }
  return table;
}();
} // namespace

extern "C" float powf(float base, float exponent) {
  [[gnu::tls_model("initial-exec")]] thread_local float known = 1;
  [[gnu::tls_model("initial-exec")]] thread_local double log2_of_known = 0;
  if (base != known) [[unlikely]] {
    log2_of_known = std::log2(double(base));
    known = base;
  }
  double z = exponent * log2_of_known;
  if (!(std::fabs(z) < 126)) [[unlikely]] { // subnormal, infinite or NaN
    return float(std::pow(double(base), double(exponent)));
  }
  constexpr double rounder = 0x1.8p52 / steps; // adding it leaves z in steps in the lowest bits
  double shifted = z + rounder;
  std::uint64_t at, bits;
  std::memcpy(&at, &shifted, sizeof at);
  bits = fractions[at % steps] + (at << (52 - step_bits));
  double scale;
  std::memcpy(&scale, &bits, sizeof scale);
  double t = (z - (shifted - rounder)) * 0x1.62e42fefa39efp-1; // 2^r = e^t, |t| < 0.011
  return float(scale * ((1 + t) + t * t * (0.5 + t * (1.0 / 6))));
}
