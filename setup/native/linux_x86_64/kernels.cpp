// Chooses the kernels for this processor.
#include "kernels.hpp"

#include <cstdlib>
#include <string_view>

// OPENELM_KERNELS is for tests: `avx2` leaves AVX-512 out, and `mlx` all kernels.
const Kernels* const kernels = []() -> const Kernels* {
  __builtin_cpu_init();
  const char* variable = std::getenv("OPENELM_KERNELS");
  std::string_view most = variable == nullptr ? "" : variable;
  bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
                  __builtin_cpu_supports("f16c");
  if (!has_avx2 || most == "mlx") return nullptr;
  bool has_avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                    __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  return has_avx512 && most != "avx2" ? &avx512_kernels : &avx2_kernels;
}();
