// Primitives of rows: RMSNorm and SwiGLU with their gradients, and softmax. MLX's CPU backend
// computes each of them as up to ten operations on one thread.
#include <algorithm>
#include <memory>
#include <utility>
#include <vector>

#include "primitive.hpp"
#include "threads.hpp"

namespace {
using namespace openelm;

// Calls `job` with the first row and the end of each piece of the rows.
constexpr int piece_elements = 1 << 14;
int rows_of_piece(int width) { return std::max(1, piece_elements / width); }
int count_of_pieces(int rows, int width) {
  int size = rows_of_piece(width);
  return (rows + size - 1) / size;
}
template <typename Job>
void run_rows(int rows, int width, const Job& job) {
  int size = rows_of_piece(width);
  run_pieces(count_of_pieces(rows, width), [&](int piece) {
    job(piece * size, std::min(rows, (piece + 1) * size));
  });
}

int rows_of(const array& x, int width) { return int(x.size() / std::size_t(width)); }

// --- RMSNorm

// The inputs: x [.., heads, width], the weight [heads, width] and the gradient of the norm. The
// outputs: the gradient of x, and those of the weight by piece [pieces, heads, width].
class NormGradient : public CpuPrimitive {
 public:
  NormGradient(Stream stream, float eps) : CpuPrimitive(stream), eps(eps) {}

  const char* name() const override { return "OpenelmNormGradient"; }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    const float *x = inputs[0].data<float>(), *weight = inputs[1].data<float>(),
                *dy = inputs[2].data<float>();
    int size = int(inputs[1].size()), width = inputs[1].shape(-1), heads = size / width;
    int tokens = rows_of(inputs[0], size);
    float *dx = allocate(outputs[0]), *dw = allocate(outputs[1]);
    float eps = this->eps;
    cpu::get_command_encoder(stream()).dispatch([=] {
      run_rows(tokens, size, [=](int first, int end) {
        float* sums = dw + std::ptrdiff_t(first / rows_of_piece(size)) * size;
        std::fill(sums, sums + size, 0.0f);
        for (int token = first; token < end; ++token)
          for (int head = 0; head < heads; ++head) {
            int of_weight = head * width;
            std::ptrdiff_t at = std::ptrdiff_t(token) * size + of_weight;
            kernels->rms_norm_gradient(x + at, weight + of_weight, eps, width, dy + at, dx + at,
                                       sums + of_weight);
          }
      });
    });
  }

 private:
  float eps;
};

// The inputs: x [.., heads, width] and the weight [heads, width], which may have one axis for one
// head.
class Norm : public CpuPrimitive {
 public:
  Norm(Stream stream, float eps) : CpuPrimitive(stream), eps(eps) {}

  const char* name() const override { return "OpenelmNorm"; }

  std::vector<array> vjp(const std::vector<array>& inputs, const std::vector<array>& cotangents,
                         const std::vector<int>& of, const std::vector<array>&) override {
    const Shape& weight = inputs[1].shape();
    int size = int(inputs[1].size());
    Shape parts = weight;
    parts.insert(parts.begin(), count_of_pieces(rows_of(inputs[0], size), size));
    auto gradients = array::make_arrays(
        {inputs[0].shape(), parts}, {float32, float32},
        std::make_shared<NormGradient>(stream(), eps),
        {inputs[0], inputs[1], row_major(cotangents[0], stream())});
    std::vector<array> result;
    for (int input : of)
      result.push_back(input == 0 ? gradients[0] : sum(gradients[1], 0, false, stream()));
    return result;
  }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    const float *x = inputs[0].data<float>(), *weight = inputs[1].data<float>();
    int size = int(inputs[1].size()), width = inputs[1].shape(-1), heads = size / width;
    int tokens = rows_of(inputs[0], size);
    float* y = allocate(outputs[0]);
    float eps = this->eps;
    cpu::get_command_encoder(stream()).dispatch([=] {
      run_rows(tokens, size, [=](int first, int end) {
        for (int token = first; token < end; ++token)
          for (int head = 0; head < heads; ++head) {
            std::ptrdiff_t at = std::ptrdiff_t(token) * size + head * width;
            kernels->rms_norm(x + at, weight + head * width, eps, width, y + at);
          }
      });
    });
  }

 private:
  float eps;
};

array norm(const array& x, const array& weight, float eps, Stream stream) {
  std::size_t axes = weight.ndim();
  check(axes >= 1 && axes <= 2 && weight.size() > 0 && x.ndim() >= axes &&
            std::equal(weight.shape().rbegin(), weight.shape().rend(), x.shape().rbegin()),
        "the weight of the norm does not fit");
  check(x.dtype() == float32 && weight.dtype() == float32, "a norm of this type");
  std::vector<array> inputs{row_major(x, stream), row_major(weight, stream)};
  return array(x.shape(), float32, std::make_shared<Norm>(stream, eps), std::move(inputs));
}

// --- SwiGLU

// The inputs: gates and ups [.., 2 · width], and the gradient of the product [.., width].
class SwigluGradient : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override { return "OpenelmSwigluGradient"; }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    const float *x = inputs[0].data<float>(), *dy = inputs[1].data<float>();
    int width = inputs[1].shape(-1), rows = rows_of(inputs[1], width);
    float* dx = allocate(outputs[0]);
    cpu::get_command_encoder(stream()).dispatch([=] {
      run_rows(rows, width, [=](int first, int end) {
        for (std::ptrdiff_t row = first; row < end; ++row) {
          std::ptrdiff_t gate = 2 * row * width, up = gate + width;
          kernels->swiglu_gradient(x + gate, x + up, dy + row * width, width, dx + gate, dx + up);
        }
      });
    });
  }
};

// The input: gates and ups [.., 2 · width].
class Swiglu : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override { return "OpenelmSwiglu"; }

  std::vector<array> vjp(const std::vector<array>& inputs, const std::vector<array>& cotangents,
                         const std::vector<int>&, const std::vector<array>&) override {
    std::vector<array> arrays{inputs[0], row_major(cotangents[0], stream())};
    auto primitive = std::make_shared<SwigluGradient>(stream());
    return {array(inputs[0].shape(), float32, std::move(primitive), std::move(arrays))};
  }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    const float* x = inputs[0].data<float>();
    int width = outputs[0].shape(-1), rows = rows_of(outputs[0], width);
    float* y = allocate(outputs[0]);
    cpu::get_command_encoder(stream()).dispatch([=] {
      run_rows(rows, width, [=](int first, int end) {
        for (std::ptrdiff_t row = first; row < end; ++row) {
          std::ptrdiff_t gate = 2 * row * width;
          kernels->swiglu(x + gate, x + gate + width, width, y + row * width);
        }
      });
    });
  }
};

array swiglu(const array& x, Stream stream) {
  check(x.dtype() == float32 && x.ndim() >= 1 && x.size() > 0 && x.shape(-1) % 2 == 0,
        "SwiGLU needs an even number of columns");
  Shape shape = x.shape();
  shape.back() /= 2;
  std::vector<array> inputs{row_major(x, stream)};
  return array(std::move(shape), float32, std::make_shared<Swiglu>(stream), std::move(inputs));
}

// --- Softmax

// The input: x [.., width]. The outputs: the softmax, the largest numbers [.., 1] and the sums
// [.., 1].
class Softmax : public CpuPrimitive {
 public:
  using CpuPrimitive::CpuPrimitive;

  const char* name() const override { return "OpenelmSoftmax"; }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    const float* x = inputs[0].data<float>();
    int width = inputs[0].shape(-1), rows = rows_of(inputs[0], width);
    float *y = allocate(outputs[0]), *most = allocate(outputs[1]), *total = allocate(outputs[2]);
    cpu::get_command_encoder(stream()).dispatch([=] {
      run_rows(rows, width, [=](int first, int end) {
        for (std::ptrdiff_t row = first; row < end; ++row)
          kernels->softmax(x + row * width, width, y + row * width, most + row, total + row);
      });
    });
  }
};

std::vector<array> softmax(const array& x, Stream stream) {
  check(x.dtype() == float32 && x.ndim() >= 1 && x.size() > 0, "a softmax of this type or shape");
  Shape one = x.shape();
  one.back() = 1;
  return array::make_arrays({x.shape(), one, one}, {float32, float32, float32},
                            std::make_shared<Softmax>(stream), {row_major(x, stream)});
}
} // namespace

extern "C" {
int openelm_rms_norm(mlx_array* result, mlx_array x, mlx_array weight, float eps,
                     mlx_stream stream) {
  return openelm::report([&] {
    mlx_array_set_(*result, norm(mlx_array_get_(x), mlx_array_get_(weight), eps,
                                 mlx_stream_get_(stream)));
  });
}

int openelm_swiglu(mlx_array* result, mlx_array x, mlx_stream stream) {
  return openelm::report(
      [&] { mlx_array_set_(*result, swiglu(mlx_array_get_(x), mlx_stream_get_(stream))); });
}

int openelm_softmax(mlx_vector_array* results, mlx_array x, mlx_stream stream) {
  return openelm::report([&] {
    mlx_vector_array_set_(*results, softmax(mlx_array_get_(x), mlx_stream_get_(stream)));
  });
}
}
