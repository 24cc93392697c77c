// Functions that mlx-rs needs and MLX's Linux wheel lacks. Compiled into libmlxc.so.
#include <cstdint>
#include <cstring>
#include <ctime>

#include "mlx/allocator.h"
#include "mlx/c/array.h"
#include "mlx/c/error.h"
#include "mlx/c/private/array.h"
#include "mlx/c/private/enums.h"

// --- Half-precision accessors: mlx/c/half.h declares them on ARM only, but mlx-rs always calls
// them.

namespace {
template <typename T>
int item_bits(std::uint16_t* result, mlx_array array) {
  try {
    T value = mlx_array_get_(array).item<T>();
    static_assert(sizeof(value) == sizeof(*result));
    std::memcpy(result, &value, sizeof(value));
  } catch (std::exception& error) {
    mlx_error(error.what());
    return 1;
  }
  return 0;
}

template <typename T>
const std::uint16_t* data_bits(mlx_array array) {
  try {
    return reinterpret_cast<const std::uint16_t*>(mlx_array_get_(array).data<T>());
  } catch (std::exception& error) {
    mlx_error(error.what());
    return nullptr;
  }
}
} // namespace

extern "C" int mlx_array_item_float16(std::uint16_t* result, const mlx_array array) {
  return item_bits<mlx::core::float16_t>(result, array);
}
extern "C" int mlx_array_item_bfloat16(std::uint16_t* result, const mlx_array array) {
  return item_bits<mlx::core::bfloat16_t>(result, array);
}
extern "C" const std::uint16_t* mlx_array_data_float16(const mlx_array array) {
  return data_bits<mlx::core::float16_t>(array);
}
extern "C" const std::uint16_t* mlx_array_data_bfloat16(const mlx_array array) {
  return data_bits<mlx::core::bfloat16_t>(array);
}

// --- The clock for the seed of mlx-rs's default random state.

extern "C" std::uint64_t mach_approximate_time() {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::uint64_t(now.tv_sec) * 1'000'000'000u + std::uint64_t(now.tv_nsec);
}

// --- Arrays over external memory. MLX can wrap such memory on a GPU; its CPU allocator copies it,
// including weights. A CPU buffer is plain memory preceded by a word with its size, so any memory
// with space for that word works. The word is read only when MLX considers reusing the buffer for a
// result with the same number of elements.
// This replaces mlx-c's function, which setup.sh makes weak.

extern "C" mlx_array mlx_array_new_data_managed_payload(
    void* data, const int* shape, int dim, mlx_dtype dtype, void* payload, void (*dtor)(void*)) {
  using namespace mlx::core;
  try {
    static const std::ptrdiff_t room = [] {
      auto probe = allocator::malloc(64);
      auto found = static_cast<char*>(probe.raw_ptr()) - static_cast<char*>(probe.ptr());
      allocator::free(probe);
      return found;
    }();
    auto cpp_dtype = mlx_dtype_to_cpp(dtype);
    auto release = [dtor, payload](allocator::Buffer) { dtor(payload); };
    allocator::Buffer buffer(static_cast<char*>(data) - room);
    return mlx_array_new_(array(buffer, Shape(shape, shape + dim), cpp_dtype, release));
  } catch (std::exception& error) {
    mlx_error(error.what());
    return mlx_array_new_();
  }
}
