// Memory for a thread's intermediate results, kept between calls: fresh pages of the system cost
// more than most products.
#pragma once
#include <cstddef>
#include <memory>

// At least `count` floats; each `Use` of a thread has its own. Valid until the next call.
template <typename Use>
float* scratch(std::size_t count) {
  struct Memory {
    std::unique_ptr<float[]> floats;
    std::size_t size = 0;
  };
  thread_local Memory memory;
  if (memory.size < count) {
    memory.floats.reset();
    memory.size = 0;
    memory.floats = std::make_unique_for_overwrite<float[]>(count);
    memory.size = count;
  }
  return memory.floats.get();
}
