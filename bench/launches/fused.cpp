// The fused operations of MLX as single nodes. For a CPU, MLX builds norms, rotary embeddings,
// attention and dequantisation from several operations; on a GPU each is one primitive. Preloaded
// (LD_PRELOAD), the functions below stand before MLX's and return the GPU's node. It evaluates to
// the result of MLX's own function.

#include <dlfcn.h>
#include <functional>
#include <memory>
#include <optional>
#include <sstream>
#include <stdexcept>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "mlx/mlx.h"
#include "mlx/primitives.h"

namespace {

using namespace mlx::core;

using Arrays = std::vector<array>;
using Function = std::function<Arrays(const Arrays&)>;

void run(Arrays results, const Arrays& inputs);

// A node whose outputs are the results of `function` for its inputs. Nodes of one name and the same
// `settings` are equal for MLX's compilation.
class Fused : public Primitive {
 public:
  Fused(Stream stream, std::string name, std::string settings, int trained, Function function)
      : Primitive(stream),
        name_(std::move(name)),
        settings_(std::move(settings)),
        trained_(trained),
        function_(std::move(function)) {}

  void eval_cpu(const Arrays& inputs, Arrays& outputs) override {
    Arrays results = function_(inputs);
    run(results, inputs);
    for (size_t i = 0; i < outputs.size(); i++) {
      outputs[i].copy_shared_buffer(results[i]);
    }
  }

  void eval_gpu(const Arrays&, Arrays&) override {
    throw std::runtime_error("a counted step runs on the CPU");
  }

  // One node, as on a GPU, for the gradients of the first `trained_` inputs.
  Arrays vjp(
      const Arrays& primals,
      const Arrays& cotangents,
      const std::vector<int>& arguments,
      const Arrays&) override {
    Arrays inputs(primals);
    inputs.push_back(cotangents.at(0));
    Function gradient = [function = function_, trained = trained_](const Arrays& inputs) {
      auto of_trained = [&](const Arrays& first) {
        Arrays all(first);
        all.insert(all.end(), inputs.begin() + trained, std::prev(inputs.end()));
        return function(all);
      };
      Arrays first(inputs.begin(), inputs.begin() + trained);
      return mlx::core::vjp(of_trained, first, {inputs.back()}).second;
    };
    std::vector<Shape> shapes;
    std::vector<Dtype> dtypes;
    for (int i = 0; i < trained_; i++) {
      shapes.push_back(primals[i].shape());
      dtypes.push_back(primals[i].dtype());
    }
    auto node = std::make_shared<Fused>(stream(), name_ + "VJP", settings_, 0, gradient);
    Arrays all = array::make_arrays(shapes, dtypes, node, inputs);
    Arrays asked;
    for (int argument : arguments) {
      asked.push_back(all.at(argument));
    }
    return asked;
  }

  const char* name() const override {
    return name_.c_str();
  }

  bool is_equivalent(const Primitive& other) const override {
    const auto& fused = static_cast<const Fused&>(other);
    return name_ == fused.name_ && settings_ == fused.settings_;
  }

 private:
  std::string name_;
  std::string settings_;
  int trained_;
  Function function_;
};

// Schedules the operations from `inputs`, which are scheduled already, to `results`.
void run(Arrays results, const Arrays& inputs) {
  // The tasks of a stream use the arrays later.
  static auto& kept = *new Arrays();
  std::unordered_set<std::uintptr_t> done;
  for (const auto& input : inputs) {
    done.insert(input.id());
  }
  std::vector<std::pair<array, bool>> rest;
  for (const auto& result : results) {
    rest.emplace_back(result, false);
  }
  while (!rest.empty()) {
    auto [next, ready] = rest.back();
    rest.pop_back();
    if (ready) {
      Arrays outputs = next.outputs();
      next.primitive().eval_cpu(next.inputs(), outputs);
      kept.insert(kept.end(), outputs.begin(), outputs.end());
      continue;
    }
    if (!next.has_primitive() || !done.insert(next.id()).second) {
      continue;
    }
    for (const auto& sibling : next.siblings()) {
      done.insert(sibling.id());
    }
    rest.emplace_back(next, true);
    for (const auto& input : next.inputs()) {
      rest.emplace_back(input, false);
    }
  }
}

array fuse(
    const char* name,
    const std::string& settings,
    int trained,
    Shape shape,
    Dtype dtype,
    Arrays inputs,
    StreamOrDevice stream,
    Function function) {
  auto node =
      std::make_shared<Fused>(to_stream(stream), name, settings, trained, std::move(function));
  return array(std::move(shape), dtype, node, std::move(inputs));
}

// MLX's own function with the name and type of `function`.
template <typename F>
F original(F function) {
  Dl_info info{};
  dladdr(reinterpret_cast<void*>(function), &info);
  auto* found = dlsym(RTLD_NEXT, info.dli_sname);
  if (found == nullptr) {
    throw std::runtime_error(std::string("MLX has no ") + info.dli_sname);
  }
  return reinterpret_cast<F>(found);
}

template <typename... T>
std::string text(const T&... values) {
  std::ostringstream out;
  ((out << values << ' '), ...);
  return out.str();
}

} // namespace

namespace mlx::core {

__attribute__((visibility("default"))) array dequantize(
    const array& w,
    const array& scales,
    const std::optional<array>& biases,
    std::optional<int> group_size,
    std::optional<int> bits,
    const std::string& mode,
    const std::optional<array>& global_scale,
    std::optional<Dtype> dtype,
    StreamOrDevice s) {
  static const auto next = original(&dequantize);
  array whole = next(w, scales, biases, group_size, bits, mode, global_scale, dtype, s);
  if (!biases || global_scale) {
    return whole;
  }
  auto function = [=](const Arrays& inputs) {
    return Arrays{next(inputs[0], inputs[1], inputs[2], group_size, bits, mode, {}, dtype, s)};
  };
  auto settings = text(group_size.value_or(0), bits.value_or(0), mode);
  Arrays inputs{w, scales, *biases};
  return fuse("Quantize", settings, 0, whole.shape(), whole.dtype(), inputs, s, function);
}

} // namespace mlx::core

namespace mlx::core::fast {

__attribute__((visibility("default"))) array rms_norm(
    const array& x,
    const std::optional<array>& weight,
    float eps,
    StreamOrDevice s) {
  static const auto next = original(&rms_norm);
  bool weighted = weight.has_value();
  Dtype dtype = weighted ? result_type(x, *weight) : x.dtype();
  Arrays inputs{astype(x, dtype, s), weighted ? astype(*weight, dtype, s) : array(1, dtype)};
  auto function = [=](const Arrays& inputs) {
    std::optional<array> weight;
    if (weighted) {
      weight = inputs[1];
    }
    return Arrays{next(inputs[0], weight, eps, s)};
  };
  return fuse("RMSNorm", text(weighted, eps), 2, x.shape(), dtype, inputs, s, function);
}

using Rope = array (*)(
    const array&,
    int,
    bool,
    std::optional<float>,
    float,
    const array&,
    const std::optional<array>&,
    StreamOrDevice);

__attribute__((visibility("default"))) array rope(
    const array& x,
    int dims,
    bool traditional,
    std::optional<float> base,
    float scale,
    const array& offset,
    const std::optional<array>& freqs,
    StreamOrDevice s) {
  static const auto next = original(static_cast<Rope>(&rope));
  Arrays inputs{x, offset};
  if (freqs) {
    inputs.push_back(*freqs);
  }
  auto function = [=](const Arrays& inputs) {
    std::optional<array> freqs;
    if (inputs.size() == 3) {
      freqs = inputs[2];
    }
    return Arrays{next(inputs[0], dims, traditional, base, scale, inputs[1], freqs, s)};
  };
  auto settings = text(dims, traditional, base.value_or(0), scale);
  return fuse("RoPE", settings, 1, x.shape(), x.dtype(), inputs, s, function);
}

__attribute__((visibility("default"))) array rope(
    const array& x,
    int dims,
    bool traditional,
    std::optional<float> base,
    float scale,
    int offset,
    const std::optional<array>& freqs,
    StreamOrDevice s) {
  return rope(x, dims, traditional, base, scale, array(offset, int32), freqs, s);
}

__attribute__((visibility("default"))) array scaled_dot_product_attention(
    const array& queries,
    const array& keys,
    const array& values,
    const float scale,
    const std::string& mask_mode,
    std::optional<array> mask,
    const std::optional<array>& sinks,
    bool force_fused,
    StreamOrDevice s) {
  static const auto next = original(&scaled_dot_product_attention);
  // Metal uses single operations in training, where the arrays are traced. In inference it has a
  // kernel for the heads' widths of OpenELM, 64 and 128.
  if (queries.is_tracer() || sinks || keys.dtype() != queries.dtype()) {
    return next(queries, keys, values, scale, mask_mode, mask, sinks, force_fused, s);
  }
  Arrays inputs{queries, keys, values};
  if (mask) {
    inputs.push_back(*mask);
  }
  auto function = [=](const Arrays& inputs) {
    std::optional<array> mask;
    if (inputs.size() == 4) {
      mask = inputs[3];
    }
    return Arrays{
        next(inputs[0], inputs[1], inputs[2], scale, mask_mode, mask, {}, false, s)};
  };
  Shape shape = queries.shape();
  shape.back() = values.shape(-1);
  auto settings = text(scale, mask_mode);
  const auto* name = "ScaledDotProductAttention";
  return fuse(name, settings, 0, shape, queries.dtype(), inputs, s, function);
}

} // namespace mlx::core::fast
