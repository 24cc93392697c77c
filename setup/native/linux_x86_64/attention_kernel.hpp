// Attention of a few queries over a cache in one pass: the softmax is corrected whenever a block of
// positions has a larger score ("online softmax", arXiv 1805.02867).
#pragma once
#include "kernels.hpp"
#include "simd.hpp"

namespace KERNELS {
// scores[q][t] for a block of `positions`, with the keys transposed: [head_dim, key_block].
template <int Q>
INLINE void score(const float* queries, const float* keys, int head_dim, float* scores) {
  constexpr int vectors = key_block / lanes;
  constexpr int most = vectors * Q <= 16 ? vectors : 16 / Q;
  for (int first = 0; first < vectors; first += most) {
    Floats sums[Q][most];
    UNROLL for (int q = 0; q < Q; ++q)
      UNROLL for (int v = 0; v < most; ++v) sums[q][v] = zero();
    for (int d = 0; d < head_dim; ++d) {
      UNROLL for (int v = 0; v < most; ++v) {
        Floats key = load(keys + d * key_block + (first + v) * lanes);
        UNROLL for (int q = 0; q < Q; ++q)
          sums[q][v] = add_product(sums[q][v], all(queries[q * head_dim + d]), key);
      }
    }
    UNROLL for (int q = 0; q < Q; ++q)
      UNROLL for (int v = 0; v < most; ++v)
        store(scores + q * key_block + (first + v) * lanes, sums[q][v]);
  }
}

// scores[q][t] of few queries, without transposing the keys.
template <int Q>
INLINE void score_few(const float* queries, const float* keys, int positions, int head_dim,
                      float* scores) {
  for (int t = 0; t < positions; ++t) {
    const float* key = keys + std::ptrdiff_t(t) * head_dim;
    Floats sums[Q];
    UNROLL for (int q = 0; q < Q; ++q) sums[q] = zero();
    int d = 0;
    for (; d + lanes <= head_dim; d += lanes) {
      Floats part = load(key + d);
      UNROLL for (int q = 0; q < Q; ++q)
        sums[q] = add_product(sums[q], load(queries + q * head_dim + d), part);
    }
    UNROLL for (int q = 0; q < Q; ++q) {
      float total = sum(sums[q]);
      for (int i = d; i < head_dim; ++i) total += queries[q * head_dim + i] * key[i];
      scores[q * key_block + t] = total;
    }
  }
}

// y[q] += weights[q] · values
template <int Q>
INLINE void add_values(const float* weights, const float* values, int positions, int head_dim,
                       float* y) {
  int d = 0;
  for (; d + lanes <= head_dim; d += lanes) {
    Floats sums[Q];
    UNROLL for (int q = 0; q < Q; ++q) sums[q] = load(y + q * head_dim + d);
    for (int t = 0; t < positions; ++t) {
      Floats value = load(values + std::ptrdiff_t(t) * head_dim + d);
      UNROLL for (int q = 0; q < Q; ++q)
        sums[q] = add_product(sums[q], all(weights[q * key_block + t]), value);
    }
    UNROLL for (int q = 0; q < Q; ++q) store(y + q * head_dim + d, sums[q]);
  }
  for (; d < head_dim; ++d)
    for (int q = 0; q < Q; ++q)
      for (int t = 0; t < positions; ++t)
        y[q * head_dim + d] +=
            weights[q * key_block + t] * values[std::ptrdiff_t(t) * head_dim + d];
}

inline void attend(const float* queries, int count, const int* seen, const float* keys,
                   const float* transposed, const float* values, int head_dim, float* const* y,
                   float* scratch) {
  float* scores = scratch;                         // [count, key_block]
  float* sums = scores + most_queries * key_block; // [count, head_dim]
  float* maxima = sums + most_queries * head_dim;  // [count]
  float* totals = maxima + most_queries;           // [count]
  int longest = 0;
  for (int q = 0; q < count; ++q) {
    longest = seen[q] > longest ? seen[q] : longest;
    maxima[q] = -__builtin_inff();
    totals[q] = 0;
  }
  for (int i = 0; i < count * head_dim; ++i) sums[i] = 0;
  for (int first = 0; first < longest; first += key_block) {
    int positions = longest - first < key_block ? longest - first : key_block;
    const float* block = keys + std::ptrdiff_t(first) * head_dim;
    const float* across =
        transposed == nullptr ? nullptr : transposed + std::ptrdiff_t(first) * head_dim;
    for (int q = 0; q < count;) {
      const float* query = queries + q * head_dim;
      float* row = scores + q * key_block;
      int left = count - q;
      if (across != nullptr) {
        if (left >= 4)
          score<4>(query, across, head_dim, row), q += 4;
        else
          score<1>(query, across, head_dim, row), q += 1;
      } else {
        switch (left) {
          case 1:
            score_few<1>(query, block, positions, head_dim, row);
            break;
          case 2:
            score_few<2>(query, block, positions, head_dim, row);
            break;
          case 3:
            score_few<3>(query, block, positions, head_dim, row);
            break;
          default:
            score_few<4>(query, block, positions, head_dim, row);
        }
        q += left < 4 ? left : 4;
      }
    }
    for (int q = 0; q < count; ++q) {
      float* row = scores + q * key_block;
      int visible = seen[q] - first;
      visible = visible < 0 ? 0 : visible > positions ? positions : visible;
      for (int t = visible; t < key_block; ++t) row[t] = -__builtin_inff();
      Floats most = load(row);
      for (int t = lanes; t < key_block; t += lanes) most = larger(load(row + t), most);
      float peak = largest(most);
      peak = peak > maxima[q] ? peak : maxima[q];
      // A NaN among the scores makes every weight NaN below.
      Floats total = zero();
      bool is_hidden = peak == -__builtin_inff();
      for (int t = 0; t < key_block; t += lanes) {
        Floats x = subtract(load(row + t), all(is_hidden ? 0 : peak));
        Floats weight = exponential(x);
        store(row + t, weight);
      }
      for (int t = visible; t < key_block; ++t) row[t] = 0;
      for (int t = 0; t < key_block; t += lanes) total = add(total, load(row + t));
      if (peak != maxima[q]) {
        float change = maxima[q] == -__builtin_inff() ? 0 : __builtin_expf(maxima[q] - peak);
        totals[q] *= change;
        for (int d = 0; d < head_dim; ++d) sums[q * head_dim + d] *= change;
        maxima[q] = peak;
      }
      totals[q] += sum(total);
    }
    for (int q = 0; q < count;) {
      float* row = scores + q * key_block;
      float* to = sums + q * head_dim;
      int left = count - q;
      if (left >= 4)
        add_values<4>(row, values + std::ptrdiff_t(first) * head_dim, positions, head_dim, to),
            q += 4;
      else
        add_values<1>(row, values + std::ptrdiff_t(first) * head_dim, positions, head_dim, to),
            q += 1;
    }
  }
  for (int q = 0; q < count; ++q) {
    float factor = 1 / totals[q];
    for (int d = 0; d < head_dim; ++d) y[q][d] = sums[q * head_dim + d] * factor;
  }
}
} // namespace KERNELS
