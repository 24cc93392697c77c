// MLX primitives of our own for the CPU backend: products with weights as a checkpoint stores them,
// attention over KV caches and row look-up, in f32. MLX's CPU backend multiplies 16-bit and
// quantised matrices in scalar code, and each of its element-wise operations on one thread.
//
// The functions have the conventions of mlx-c. They check the shapes and types of their arguments.

#include <memory>
#include <vector>

#include "attention.hpp"
#include "linear.hpp"
#include "primitive.hpp"

namespace {
using namespace openelm;

// --- Matrices

Number number_of(Dtype dtype) {
  if (dtype == float32) return Number::float32;
  if (dtype == float16) return Number::float16;
  check(dtype == bfloat16, "a matrix is not floating-point");
  return Number::bfloat16;
}

// What a matrix is, without its data.
struct Format {
  Number number;
  int bits, group;
  Dtype scale;

  bool is_quantized() const { return number >= Number::affine; }
};

// The arrays of a matrix are inputs of a primitive from `first` on.
Matrix matrix_of(const Format& format, const std::vector<array>& inputs, int first) {
  const array& values = inputs[first];
  Matrix matrix{format.number, values.shape(0), values.shape(1), values.data<void>()};
  if (!format.is_quantized()) return matrix;
  const array& scales = inputs[first + 1];
  matrix.bits = format.bits;
  matrix.group = format.group;
  matrix.width = scales.shape(1) * format.group;
  matrix.scales = scales.data<void>();
  if (format.number == Number::affine) {
    matrix.biases = inputs[first + 2].data<void>();
    matrix.scale = number_of(format.scale);
  }
  return matrix;
}

Format checked(const openelm_matrix& from, std::vector<array>& inputs, const Stream& stream) {
  const array& values = mlx_array_get_(from.values);
  check(values.ndim() == 2, "the weights are not a matrix");
  inputs.push_back(row_major(values, stream));
  if (from.scales.ctx == nullptr) return Format{number_of(values.dtype()), 0, 0, float32};
  const array& scales = mlx_array_get_(from.scales);
  std::string mode = from.mode;
  Number number = mode == "affine"  ? Number::affine
                  : mode == "mxfp4" ? Number::mxfp4
                  : mode == "mxfp8" ? Number::mxfp8
                                    : Number::nvfp4;
  check(number != Number::nvfp4 || mode == "nvfp4", "unknown quantisation mode");
  bool has_biases = number == Number::affine;
  check(has_biases == (from.biases.ctx != nullptr), "only affine matrices have biases");
  check(values.dtype() == uint32 && scales.ndim() == 2 && scales.shape(0) == values.shape(0),
        "the parts of a quantised matrix do not fit");
  int bits = from.bits, group = from.group_size;
  check(
      bits == 4 || bits == 8 || (has_biases && (bits == 2 || bits == 3 || bits == 5 || bits == 6)),
      "bits");
  check(group == 16 || group == 32 || group == 64 || group == 128, "group size");
  check(has_biases || bits == (number == Number::mxfp8 ? 8 : 4), "bits");
  check(scales.shape(1) <= most_groups, "too many groups");
  check(std::int64_t(values.shape(1)) * 32 == std::int64_t(scales.shape(1)) * group * bits,
        "the parts of a quantised matrix do not fit");
  inputs.push_back(row_major(scales, stream));
  if (has_biases) {
    const array& biases = mlx_array_get_(from.biases);
    check(biases.shape() == scales.shape() && biases.dtype() == scales.dtype(),
          "the biases do not fit the scales");
    number_of(scales.dtype());
    inputs.push_back(row_major(biases, stream));
  } else {
    check(scales.dtype() == uint8, "the scales are not of 8 bits");
  }
  return Format{number, bits, group, scales.dtype()};
}

int width_of(const Format& format, const std::vector<array>& matrix) {
  return format.is_quantized() ? matrix[1].shape(1) * format.group : matrix[0].shape(1);
}

// --- Products

class LinearPrimitive : public CpuPrimitive {
 public:
  LinearPrimitive(Stream stream, Format format, float eps, bool has_norm, bool has_residual,
                  bool swiglu)
      : CpuPrimitive(stream),
        format(format),
        eps(eps),
        has_norm(has_norm),
        has_residual(has_residual),
        swiglu(swiglu) {}

  const char* name() const override { return "OpenelmLinear"; }

  // The gradient of x. The matrix, which is not trained in this form, has none.
  std::vector<array> vjp(const std::vector<array>& inputs, const std::vector<array>& cotangents,
                         const std::vector<int>& of, const std::vector<array>&) override;

  // The inputs: x, the norm, the residual, and the arrays of the matrix.
  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    Linear linear{matrix_of(format, inputs, 1 + has_norm + has_residual)};
    if (has_norm) linear.norm = inputs[1].data<float>();
    if (has_residual) linear.residual = inputs[1 + has_norm].data<float>();
    linear.eps = eps;
    linear.swiglu = swiglu;
    const float* x = inputs[0].data<float>();
    int count = int(inputs[0].size() / linear.matrix.width);
    float* y = allocate(outputs[0]);
    cpu::get_command_encoder(stream()).dispatch([=] { linear.forward(x, count, y); });
  }

 private:
  Format format;
  float eps;
  bool has_norm, has_residual, swiglu;
};

class GradientPrimitive : public CpuPrimitive {
 public:
  GradientPrimitive(Stream stream, Format format) : CpuPrimitive(stream), format(format) {}

  const char* name() const override { return "OpenelmLinearGradient"; }

  // The inputs: the gradient of the product, and the arrays of the matrix.
  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    Linear linear{matrix_of(format, inputs, 1)};
    const float* y = inputs[0].data<float>();
    int count = int(inputs[0].size() / linear.matrix.rows);
    float* x = allocate(outputs[0]);
    cpu::get_command_encoder(stream()).dispatch([=] { linear.backward(y, count, x); });
  }

 private:
  Format format;
};

std::vector<array> LinearPrimitive::vjp(const std::vector<array>& inputs,
                                        const std::vector<array>& cotangents,
                                        const std::vector<int>& of, const std::vector<array>&) {
  check(!has_norm && !has_residual && !swiglu, "only a product alone has a gradient");
  check(of == std::vector<int>{0}, "only the activations have a gradient");
  std::vector<array> arrays{row_major(cotangents[0], stream())};
  arrays.insert(arrays.end(), inputs.begin() + 1, inputs.end());
  auto primitive = std::make_shared<GradientPrimitive>(stream(), format);
  return {array(inputs[0].shape(), float32, std::move(primitive), std::move(arrays))};
}

array linear(const array& x, const openelm_matrix& from, const array* norm, float eps,
             const array* residual, bool swiglu, Stream stream) {
  std::vector<array> matrix;
  Format format = checked(from, matrix, stream);
  int width = width_of(format, matrix), rows = matrix[0].shape(0);
  check(x.dtype() == float32 && x.ndim() >= 1 && x.shape(-1) == width,
        "the activations do not fit the matrix");
  check(!swiglu || (rows % 2 == 0 && residual == nullptr),
        "SwiGLU needs an even number of rows and no residual");
  Shape shape = x.shape();
  shape.back() = swiglu ? rows / 2 : rows;
  std::vector<array> inputs{row_major(x, stream)};
  if (norm != nullptr) {
    check(norm->dtype() == float32 && norm->shape() == Shape{width},
          "the norm does not fit the matrix");
    inputs.push_back(row_major(*norm, stream));
  }
  if (residual != nullptr) {
    check(residual->dtype() == float32 && residual->shape() == shape,
          "the residual does not fit the product");
    inputs.push_back(row_major(*residual, stream));
  }
  inputs.insert(inputs.end(), matrix.begin(), matrix.end());
  auto primitive = std::make_shared<LinearPrimitive>(stream, format, eps, norm != nullptr,
                                                     residual != nullptr, swiglu);
  return array(std::move(shape), float32, std::move(primitive), std::move(inputs));
}

// --- Rows

class RowsPrimitive : public CpuPrimitive {
 public:
  RowsPrimitive(Stream stream, Format format) : CpuPrimitive(stream), format(format) {}

  const char* name() const override { return "OpenelmRows"; }

  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    Matrix matrix = matrix_of(format, inputs, 1);
    const std::uint32_t* ids = inputs[0].data<std::uint32_t>();
    std::size_t count = inputs[0].size();
    float* y = allocate(outputs[0]);
    cpu::get_command_encoder(stream()).dispatch([=] {
      for (std::size_t i = 0; i < count; ++i) {
        float* row = y + std::ptrdiff_t(i) * matrix.width;
        if (ids[i] < std::uint32_t(matrix.rows)) {
          kernels->expand(matrix, int(ids[i]), row);
        } else {
          std::fill(row, row + matrix.width, std::numeric_limits<float>::quiet_NaN());
        }
      }
    });
  }

 private:
  Format format;
};

array rows(const array& ids, const openelm_matrix& from, Stream stream) {
  std::vector<array> matrix;
  Format format = checked(from, matrix, stream);
  Shape shape = ids.shape();
  shape.push_back(width_of(format, matrix));
  std::vector<array> inputs{row_major(astype(ids, uint32, stream), stream)};
  inputs.insert(inputs.end(), matrix.begin(), matrix.end());
  return array(std::move(shape), float32, std::make_shared<RowsPrimitive>(stream, format),
               std::move(inputs));
}

// --- Attention

// A sequence of a pass: the positions before its tokens, and their number.
struct Part {
  int offset, tokens;
};

class AttentionPrimitive : public CpuPrimitive {
 public:
  AttentionPrimitive(Stream stream, Heads heads, bool has_norms, std::vector<Part> parts)
      : CpuPrimitive(stream), heads(heads), has_norms(has_norms), parts(std::move(parts)) {}

  const char* name() const override { return "OpenelmAttention"; }

  // The inputs: qkv, cosines, sines, both norms, and keys and values of each sequence. The outputs:
  // the attention, and keys and values of each sequence, which take the memory of the inputs where
  // nothing else uses it.
  void eval_cpu(const std::vector<array>& inputs, std::vector<array>& outputs) override {
    check_layout(inputs);
    // Each output holds the inputs too, which would then never be donated. MLX clears them after
    // this function.
    for (array& output : outputs)
      if (!output.is_tracer() && &output.inputs() != &inputs) output.inputs().clear();
    Heads heads = this->heads;
    if (has_norms) {
      heads.query_norm = inputs[3].data<float>();
      heads.key_norm = inputs[4].data<float>();
    }
    float* y = allocate(outputs[0]);
    std::vector<Sequence> sequences;
    std::vector<std::pair<const float*, float*>> copies;
    std::size_t first = has_norms ? 5 : 3;
    for (std::size_t i = 0; i < parts.size(); ++i) {
      Sequence sequence{parts[i].offset, parts[i].tokens, nullptr, nullptr,
                        outputs[1 + 2 * i].shape(2)};
      float** places[]{&sequence.keys, &sequence.values};
      for (int part = 0; part < 2; ++part) {
        const array& before = inputs[first + 2 * i + part];
        array& after = outputs[1 + 2 * i + part];
        if (before.shape() == after.shape() && before.is_donatable() &&
            before.data_size() == before.size()) {
          after.copy_shared_buffer(before);
        } else {
          copies.push_back({before.size() == 0 ? nullptr : before.data<float>(), allocate(after)});
        }
        *places[part] = after.data<float>();
      }
      sequences.push_back(sequence);
    }
    std::vector<int> capacities;
    for (std::size_t i = 0; i < parts.size(); ++i)
      for (int part = 0; part < 2; ++part)
        capacities.push_back(inputs[first + 2 * i + part].shape(2));
    const float *qkv = inputs[0].data<float>(), *cosines = inputs[1].data<float>(),
                *sines = inputs[2].data<float>();
    // Not of `this`, which is gone when MLX's thread runs it.
    auto run = [heads, sequences, copies, capacities, qkv, cosines, sines, y] {
      auto copy = copies.begin();
      for (std::size_t i = 0; i < sequences.size(); ++i) {
        const Sequence& sequence = sequences[i];
        for (int part = 0; part < 2; ++part) {
          float* to = part == 0 ? sequence.keys : sequence.values;
          if (copy == copies.end() || copy->second != to) continue;
          copy_positions(heads, copy->first, capacities[2 * i + part], sequence.offset,
                         sequence.capacity, to);
          ++copy;
        }
      }
      Attention(heads, sequences).forward(qkv, cosines, sines, y);
    };
    cpu::get_command_encoder(stream()).dispatch(std::move(run));
  }

 private:
  // The first `count` positions of each head to a buffer of another capacity; zeros after them.
  static void copy_positions(const Heads& heads, const float* from, int capacity, int count,
                             int new_capacity, float* to) {
    for (int head = 0; head < heads.keys; ++head) {
      float* start = to + std::ptrdiff_t(head) * new_capacity * heads.dim;
      std::ptrdiff_t kept = std::ptrdiff_t(count) * heads.dim;
      if (count > 0) std::copy_n(from + std::ptrdiff_t(head) * capacity * heads.dim, kept, start);
      std::fill(start + kept, start + std::ptrdiff_t(new_capacity) * heads.dim, 0.0f);
    }
  }

  Heads heads;
  bool has_norms;
  std::vector<Part> parts;
};

std::vector<array> attention(const array& qkv, const array& cosines, const array& sines,
                             const array* query_norm, const array* key_norm,
                             const std::vector<array>& caches, const openelm_attention& of,
                             Stream stream) {
  Heads heads{of.query_heads, of.key_heads, of.head_dim, nullptr, nullptr, of.eps, of.scale};
  check(heads.queries > 0 && heads.keys > 0 && heads.queries % heads.keys == 0,
        "the heads do not form groups");
  check(heads.dim > 0 && heads.dim % 2 == 0 && heads.dim <= most_head_dim, "the width of a head");
  check(of.sequences > 0 && caches.size() == 2 * std::size_t(of.sequences),
        "each sequence has keys and values");
  std::vector<Part> parts;
  std::int64_t tokens = 0;
  for (int i = 0; i < of.sequences; ++i) {
    check(of.offsets[i] >= 0 && of.lengths[i] > 0, "the positions of a sequence");
    parts.push_back({of.offsets[i], of.lengths[i]});
    tokens += of.lengths[i];
  }
  check(qkv.dtype() == float32 && qkv.size() == std::size_t(tokens) * heads.all() * heads.dim &&
            qkv.shape(-1) == heads.all() * heads.dim,
        "the queries, keys and values do not fit the heads");
  for (const array* table : {&cosines, &sines})
    check(table->dtype() == float32 && table->size() == std::size_t(tokens) * (heads.dim / 2),
          "the rotation does not fit the tokens");
  std::vector<array> inputs{row_major(qkv, stream), row_major(cosines, stream),
                            row_major(sines, stream)};
  check((query_norm == nullptr) == (key_norm == nullptr), "one norm is missing");
  if (query_norm != nullptr) {
    for (const array* norm : {query_norm, key_norm}) {
      check(norm->dtype() == float32 && norm->shape() == Shape{heads.dim},
            "a norm does not fit the heads");
      inputs.push_back(row_major(*norm, stream));
    }
  }
  Shape shape = qkv.shape();
  shape.back() = heads.queries * heads.dim;
  std::vector<Shape> shapes{shape};
  for (int i = 0; i < of.sequences; ++i) {
    for (int part = 0; part < 2; ++part) {
      const array& cache = caches[2 * i + part];
      check(cache.dtype() == float32 && cache.ndim() == 4 && cache.shape(0) == 1 &&
                cache.shape(1) == heads.keys && cache.shape(3) == heads.dim &&
                cache.shape(2) >= parts[i].offset,
            "a cache does not fit the heads");
      int end = parts[i].offset + parts[i].tokens, capacity = cache.shape(2);
      if (capacity < end)
        capacity = parts[i].offset + (parts[i].tokens + of.step - 1) / of.step * of.step;
      inputs.push_back(row_major(cache, stream));
      shapes.push_back({1, heads.keys, capacity, heads.dim});
    }
    check(shapes[1 + 2 * i] == shapes[2 + 2 * i], "keys and values have different capacities");
  }
  std::vector<Dtype> dtypes(shapes.size(), float32);
  auto primitive =
      std::make_shared<AttentionPrimitive>(stream, heads, query_norm != nullptr, std::move(parts));
  return array::make_arrays(std::move(shapes), dtypes, std::move(primitive), std::move(inputs));
}

} // namespace

using openelm::optional, openelm::report;

extern "C" {
bool openelm_has_kernels() { return kernels != nullptr; }

int openelm_linear(mlx_array* result, mlx_array x, openelm_matrix matrix, mlx_array norm, float eps,
                   mlx_array residual, bool swiglu, mlx_stream stream) {
  return report([&] {
    array y = linear(mlx_array_get_(x), matrix, optional(norm), eps, optional(residual), swiglu,
                     mlx_stream_get_(stream));
    mlx_array_set_(*result, std::move(y));
  });
}

int openelm_rows(mlx_array* result, mlx_array ids, openelm_matrix matrix, mlx_stream stream) {
  return report(
      [&] { mlx_array_set_(*result, rows(mlx_array_get_(ids), matrix, mlx_stream_get_(stream))); });
}

int openelm_attend(mlx_vector_array* results, mlx_array qkv, mlx_array cosines, mlx_array sines,
                   mlx_array query_norm, mlx_array key_norm, mlx_vector_array caches,
                   openelm_attention attention_of, mlx_stream stream) {
  return report([&] {
    mlx_vector_array_set_(
        *results, attention(mlx_array_get_(qkv), mlx_array_get_(cosines), mlx_array_get_(sines),
                            optional(query_norm), optional(key_norm), mlx_vector_array_get_(caches),
                            attention_of, mlx_stream_get_(stream)));
  });
}
}
