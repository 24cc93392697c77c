// What the primitives of this folder share: checks, memory, and errors in mlx-c's way.
#pragma once
#include <stdexcept>
#include <string>
#include <vector>

#include "kernels.hpp"
#include "mlx/allocator.h"
#include "mlx/backend/cpu/encoder.h"
#include "mlx/c/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/array.h"
#include "mlx/c/private/stream.h"
#include "mlx/c/private/vector.h"
#include "mlx/ops.h"
#include "mlx/primitives.h"
#include "primitives.h"

namespace openelm {
using namespace mlx::core;

inline void check(bool holds, const char* problem) {
  if (!holds) throw std::invalid_argument(std::string("[openelm] ") + problem);
}

inline bool is_row_major(const array& x) { return x.flags().row_contiguous; }

inline float* allocate(array& x) {
  x.set_data(allocator::malloc(x.nbytes()));
  return x.data<float>();
}

class CpuPrimitive : public Primitive {
 public:
  using Primitive::Primitive;
  void eval_gpu(const std::vector<array>&, std::vector<array>&) override {
    throw std::runtime_error("[openelm] this primitive is for a CPU");
  }

 protected:
  // Row-major inputs can be read in place; others are an error of the caller, who makes them so.
  static void check_layout(const std::vector<array>& inputs) {
    for (const array& input : inputs) check(is_row_major(input), "an input is not row-major");
  }
};

// `x` in row-major order: as it is, if it is known to be.
inline array row_major(const array& x, const Stream& stream) {
  bool is_known = x.has_primitive() ? dynamic_cast<CpuPrimitive*>(&x.primitive()) != nullptr
                                    : x.status() != array::Status::unscheduled && is_row_major(x);
  return is_known ? x : contiguous(x, false, stream);
}

inline const array* optional(mlx_array x) { return x.ctx == nullptr ? nullptr : &mlx_array_get_(x); }

template <typename Function>
int report(const Function& function) {
  try {
    check(kernels != nullptr, "this processor has no AVX2");
    function();
  } catch (std::exception& error) {
    mlx_error(error.what());
    return 1;
  }
  return 0;
}
} // namespace openelm
