// Counts the nodes of every graph that a program evaluates with MLX. Preloaded (LD_PRELOAD), it
// stands before `mlx::core::eval` and `async_eval`, adds up the names of the primitives that they
// will run, and writes the sums as JSON to the file LAUNCHES_OUT when the program ends.
//
// Outputs of one primitive are one node.

#include <cstdlib>
#include <dlfcn.h>
#include <fstream>
#include <map>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mlx/mlx.h"
#include "mlx/primitives.h"

namespace {

using mlx::core::array;

struct Counts {
  std::map<std::string, long> nodes;

  // The library is for this process, not for the compiler that MLX starts.
  Counts() {
    unsetenv("LD_PRELOAD");
  }

  ~Counts() {
    const char* path = std::getenv("LAUNCHES_OUT");
    if (path == nullptr) {
      return;
    }
    std::ofstream out(path);
    out << "{";
    const char* separator = "";
    for (const auto& [name, count] : nodes) {
      out << separator << "\"" << name << "\": " << count;
      separator = ", ";
    }
    out << "}\n";
  }
};

Counts counts;

void count(const std::vector<array>& outputs) {
  std::unordered_set<std::uintptr_t> seen;
  std::vector<array> rest(outputs);
  while (!rest.empty()) {
    array next = rest.back();
    rest.pop_back();
    if (!seen.insert(next.id()).second) {
      continue;
    }
    for (const auto& sibling : next.siblings()) {
      seen.insert(sibling.id());
    }
    if (!next.has_primitive() || next.status() != array::Status::unscheduled) {
      continue;
    }
    counts.nodes[next.primitive().name()]++;
    for (const auto& input : next.inputs()) {
      rest.push_back(input);
    }
  }
}

using Evaluate = void (*)(std::vector<array>);

Evaluate original(const char* symbol) {
  return reinterpret_cast<Evaluate>(dlsym(RTLD_NEXT, symbol));
}

} // namespace

namespace mlx::core {

__attribute__((visibility("default"))) void eval(std::vector<array> outputs) {
  count(outputs);
  static const Evaluate next = original("_ZN3mlx4core4evalESt6vectorINS0_5arrayESaIS2_EE");
  next(std::move(outputs));
}

__attribute__((visibility("default"))) void async_eval(std::vector<array> outputs) {
  count(outputs);
  static const Evaluate next = original("_ZN3mlx4core10async_evalESt6vectorINS0_5arrayESaIS2_EE");
  next(std::move(outputs));
}

} // namespace mlx::core
