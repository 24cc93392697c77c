// Products of activations with a matrix of weights, with the norm before and the addition or SwiGLU
// after them, on all threads.
#pragma once
#include <algorithm>
#include <cstddef>

#include "blas.hpp"
#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"

struct Linear {
  Matrix matrix;
  const float* norm = nullptr; // [width]: y = norm(x) · Wᵀ
  float eps = 0;
  const float* residual = nullptr; // [count, outputs]: y = x · Wᵀ + residual
  bool swiglu = false;             // the first half of the matrix's rows is the gate

  int outputs() const { return swiglu ? matrix.rows / 2 : matrix.rows; }

  // `x` [count, width] to `y` [count, outputs]. The bytes do not depend on the number of threads,
  // nor those of a row on other rows if there are at most `most_rows`; but one row alone with 4 bits
  // can be multiplied in integers (integer_products.hpp).
  void forward(const float* x, int count, float* y) const {
    const float* rows = normed(x, count);
    bool has_tile = matrix.rows >= 32 && matrix.width >= 64; // rows_by_transposed.hpp
    if (count <= most_rows && matrix.number == Number::float32 && has_tile) {
      forward_float32(rows, count, y);
    } else if (count <= most_rows) {
      forward_few(rows, count, y);
    } else {
      forward_many(rows, count, y);
    }
  }

  // `y` [count, rows] to `x` = y · W [count, width].
  void backward(const float* y, int count, float* x) const {
    constexpr std::ptrdiff_t elements = 1 << 20; // of an expanded panel
    int size = std::min(matrix.rows, int(std::max<std::ptrdiff_t>(elements / matrix.width, 16)));
    float* panel = scratch<Panel>(std::size_t(size) * matrix.width);
    for (int first = 0; first < matrix.rows; first += size) {
      int rows = std::min(size, matrix.rows - first);
      constexpr int piece = 16;
      run_pieces((rows + piece - 1) / piece, [&](int i) {
        for (int n = i * piece; n < std::min(rows, (i + 1) * piece); ++n)
          kernels->expand(matrix, first + n, panel + std::ptrdiff_t(n) * matrix.width);
      });
      multiply_by_rows(count, matrix.width, rows, y + first, matrix.rows, panel, first > 0, x);
    }
  }

 private:
  struct Normed;
  struct Reordered;
  struct Digits;
  struct Steps;
  struct Sums;
  struct Panel;
  struct Halves;

  const float* normed(const float* x, int count) const {
    if (norm == nullptr) return x;
    float* rows = scratch<Normed>(std::size_t(count) * matrix.width);
    constexpr int piece = 16;
    run_pieces((count + piece - 1) / piece, [&](int i) {
      for (int r = i * piece; r < std::min(count, (i + 1) * piece); ++r) {
        std::ptrdiff_t at = std::ptrdiff_t(r) * matrix.width;
        kernels->rms_norm(x + at, norm, eps, matrix.width, rows + at);
      }
    });
    return rows;
  }

  // Adds the residual, or joins both halves, of the outputs from `first`: `halves` has `count` rows
  // of gates, then `count` rows of the others.
  void finish(int r, int first, int size, const float* gate, const float* up, float* y) const {
    float* to = y + std::ptrdiff_t(r) * outputs() + first;
    if (swiglu) {
      kernels->swiglu(gate, up, size, to);
    } else if (residual != nullptr) {
      const float* others = residual + std::ptrdiff_t(r) * outputs() + first;
      for (int i = 0; i < size; ++i) to[i] += others[i];
    }
  }

  // BLAS has a kernel for few rows (few_rows.hpp).
  void forward_float32(const float* x, int count, float* y) const {
    float* product = swiglu ? scratch<Halves>(std::size_t(count) * matrix.rows) : y;
    auto values = static_cast<const float*>(matrix.values);
    multiply_on_all_threads(count, matrix.rows, matrix.width, x, values, product);
    for (int r = 0; r < count; ++r) {
      const float* row = product + std::ptrdiff_t(r) * matrix.rows;
      finish(r, 0, outputs(), row, row + outputs(), y);
    }
  }

  void forward_few(const float* x, int count, float* y) const {
    Rows rows{count, x, matrix.width, nullptr, nullptr};
    if (kernels->needs_reordered(matrix)) {
      float* reordered = scratch<Reordered>(std::size_t(count) * matrix.width);
      for (int r = 0; r < count; ++r)
        kernels->reorder(x + std::ptrdiff_t(r) * matrix.width, matrix.width,
                         reordered + std::ptrdiff_t(r) * matrix.width);
      rows.reordered = reordered;
    }
    if (count == 1 && kernels->has_digits(matrix)) {
      auto digits = reinterpret_cast<std::int8_t*>(scratch<Digits>(std::size_t(matrix.width)));
      float* steps = scratch<Steps>(padded_groups(matrix.groups()));
      kernels->to_digits(x, rows.reordered, matrix.width, matrix.group, digits, steps);
      rows.digits = digits;
      rows.steps = steps;
    }
    if (matrix.number == Number::affine) {
      float* sums = scratch<Sums>(std::size_t(count) * padded_groups(matrix.groups()));
      for (int r = 0; r < count; ++r)
        kernels->group_sums(x + std::ptrdiff_t(r) * matrix.width, matrix.width, matrix.group,
                            sums + std::ptrdiff_t(r) * padded_groups(matrix.groups()));
      rows.sums = sums;
    }
    constexpr std::ptrdiff_t bytes = 1 << 16; // of a piece
    constexpr int most = 256;
    int size = int(std::clamp<std::ptrdiff_t>(bytes / matrix.row_bytes() / 16 * 16, 16, most));
    run_pieces((outputs() + size - 1) / size, [&](int piece) {
      int first = piece * size, end = std::min(outputs(), first + size);
      if (!swiglu) {
        kernels->multiply(matrix, rows, first, end, y + first, outputs());
        for (int r = 0; r < count; ++r) finish(r, first, end - first, nullptr, nullptr, y);
        return;
      }
      float gates[most_rows * most], ups[most_rows * most];
      kernels->multiply(matrix, rows, first, end, gates, most);
      kernels->multiply(matrix, rows, outputs() + first, outputs() + end, ups, most);
      for (int r = 0; r < count; ++r)
        finish(r, first, end - first, gates + r * most, ups + r * most, y);
    });
  }

  void forward_many(const float* x, int count, float* y) const {
    constexpr std::ptrdiff_t elements = 1 << 18; // of an expanded panel: 1 MiB
    int size = int(std::clamp<std::ptrdiff_t>(elements / matrix.width / 16 * 16, 16, 256));
    // x · Wᵀ for the rows of the matrix from `first`, with a row per `stride`.
    auto multiply = [&](int first, int end, float* to, int stride) {
      const float* panel = nullptr;
      if (matrix.number == Number::float32) {
        panel = static_cast<const float*>(matrix.values) + std::ptrdiff_t(first) * matrix.width;
      } else {
        float* rows = scratch<Panel>(std::size_t(end - first) * matrix.width);
        for (int n = first; n < end; ++n)
          kernels->expand(matrix, n, rows + std::ptrdiff_t(n - first) * matrix.width);
        panel = rows;
      }
      multiply_on_this_thread(count, end - first, matrix.width, x, panel, to, stride);
    };
    run_pieces((outputs() + size - 1) / size, [&](int piece) {
      int first = piece * size, end = std::min(outputs(), first + size);
      if (!swiglu) {
        multiply(first, end, y + first, outputs());
        for (int r = 0; r < count; ++r) finish(r, first, end - first, nullptr, nullptr, y);
        return;
      }
      float* gates = scratch<Halves>(2 * std::size_t(count) * size);
      float* ups = gates + std::size_t(count) * size;
      multiply(first, end, gates, size);
      multiply(outputs() + first, outputs() + end, ups, size);
      for (int r = 0; r < count; ++r)
        finish(r, first, end - first, gates + std::ptrdiff_t(r) * size,
               ups + std::ptrdiff_t(r) * size, y);
    });
  }
};
