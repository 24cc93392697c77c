// Attention of new tokens over the KV caches of their sequences, on all threads.
#pragma once
#include <algorithm>
#include <cstddef>
#include <cstring>
#include <vector>

#include "kernels.hpp"
#include "scratch.hpp"
#include "threads.hpp"

// The heads of a layer, and their norms.
struct Heads {
  int queries, keys, dim;
  const float *query_norm, *key_norm; // [dim]; null without norms
  float eps;
  float scale;

  int group() const { return queries / keys; }
  int all() const { return queries + 2 * keys; }
};

// A sequence: its cache, [heads.keys, capacity, heads.dim], and the number of its tokens.
struct Sequence {
  int offset; // positions in the cache before the tokens
  int tokens;
  float *keys, *values;
  int capacity;
};

class Attention {
 public:
  Attention(const Heads& heads, const std::vector<Sequence>& sequences)
      : heads(heads), sequences(sequences) {
    for (const Sequence& sequence : sequences) tokens += sequence.tokens;
  }

  // Writes the keys and values of `qkv` [tokens, heads.all(), heads.dim] to the caches, and the
  // attention of the queries to `y` [tokens, heads.queries, heads.dim]. `cosines` and `sines` are
  // [tokens, heads.dim / 2].
  void forward(const float* qkv, const float* cosines, const float* sines, float* y) const {
    float* queries = scratch<Queries>(std::size_t(tokens) * heads.queries * heads.dim);
    write_caches(qkv, cosines, sines, queries);
    std::vector<const float*> transposed = transpose_keys();
    attend(queries, transposed, y);
  }

 private:
  struct Queries;
  struct Keys;
  struct Intermediate;

  // The rotated queries become [heads.keys, tokens, heads.group(), heads.dim].
  void write_caches(const float* qkv, const float* cosines, const float* sines,
                    float* queries) const {
    struct Place {
      const Sequence* sequence;
      int position;
    };
    std::vector<Place> places;
    places.reserve(tokens);
    for (const Sequence& sequence : sequences)
      for (int i = 0; i < sequence.tokens; ++i) places.push_back({&sequence, sequence.offset + i});
    constexpr int size = 8;
    int dim = heads.dim, group = heads.group();
    run_pieces((tokens + size - 1) / size, [&](int piece) {
      for (int t = piece * size; t < std::min(tokens, (piece + 1) * size); ++t) {
        const float* token = qkv + std::ptrdiff_t(t) * heads.all() * dim;
        const float* cosine = cosines + std::ptrdiff_t(t) * (dim / 2);
        const float* sine = sines + std::ptrdiff_t(t) * (dim / 2);
        for (int head = 0; head < heads.keys; ++head)
          kernels->rotate(token + std::ptrdiff_t(head) * group * dim, heads.query_norm, heads.eps,
                          cosine, sine, group, dim, heads.scale,
                          queries + (std::ptrdiff_t(head) * tokens + t) * group * dim, dim);
        const Sequence& sequence = *places[t].sequence;
        std::ptrdiff_t at = std::ptrdiff_t(places[t].position) * dim;
        std::ptrdiff_t stride = std::ptrdiff_t(sequence.capacity) * dim;
        const float* key = token + std::ptrdiff_t(heads.queries) * dim;
        kernels->rotate(key, heads.key_norm, heads.eps, cosine, sine, heads.keys, dim, 1,
                        sequence.keys + at, stride);
        const float* value = key + std::ptrdiff_t(heads.keys) * dim;
        for (int head = 0; head < heads.keys; ++head)
          std::memcpy(sequence.values + head * stride + at, value + std::ptrdiff_t(head) * dim,
                      dim * sizeof(float));
      }
    });
  }

  // For each sequence with many queries its keys as [heads.keys, blocks, heads.dim, key_block].
  std::vector<const float*> transpose_keys() const {
    constexpr int least = 16; // queries of a head
    std::size_t size = 0;
    std::vector<std::size_t> places(sequences.size());
    auto needs = [&](const Sequence& s) { return s.tokens * heads.group() >= least; };
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      places[i] = size;
      if (needs(sequences[i]))
        size += std::size_t(heads.keys) * blocks(sequences[i]) * heads.dim * key_block;
    }
    std::vector<const float*> transposed(sequences.size(), nullptr);
    if (size == 0) return transposed;
    float* all = scratch<Keys>(size);
    for (std::size_t i = 0; i < sequences.size(); ++i) {
      const Sequence& sequence = sequences[i];
      if (!needs(sequence)) continue;
      transposed[i] = all + places[i];
      int count = blocks(sequence), seen = sequence.offset + sequence.tokens;
      run_pieces(heads.keys * count, [&](int piece) {
        int head = piece / count, first = piece % count * key_block;
        float* to = all + places[i] + std::ptrdiff_t(piece) * heads.dim * key_block;
        const float* keys =
            sequence.keys + (std::ptrdiff_t(head) * sequence.capacity + first) * heads.dim;
        int positions = std::min(key_block, seen - first);
        for (int d = 0; d < heads.dim; ++d)
          for (int t = 0; t < key_block; ++t)
            to[d * key_block + t] = t < positions ? keys[std::ptrdiff_t(t) * heads.dim + d] : 0;
      });
    }
    return transposed;
  }

  void attend(const float* queries, const std::vector<const float*>& transposed, float* y) const {
    struct Piece {
      int sequence, head, first, count; // tokens
      int start;                        // of the sequence
    };
    std::vector<Piece> pieces;
    int group = heads.group(), dim = heads.dim;
    int size = std::max(1, most_queries / group);
    int start = 0;
    for (int s = 0; s < int(sequences.size()); ++s) {
      for (int first = 0; first < sequences[s].tokens; first += size)
        for (int head = 0; head < heads.keys; ++head)
          pieces.push_back({s, head, first, std::min(size, sequences[s].tokens - first), start});
      start += sequences[s].tokens;
    }
    run_pieces(int(pieces.size()), [&](int at) {
      const Piece& piece = pieces[at];
      const Sequence& sequence = sequences[piece.sequence];
      float* memory = scratch<Intermediate>(attention_scratch(dim));
      std::ptrdiff_t of_head = std::ptrdiff_t(piece.head) * sequence.capacity * dim;
      const float* across = transposed[piece.sequence];
      if (across != nullptr)
        across += std::ptrdiff_t(piece.head) * blocks(sequence) * dim * key_block;
      int seen[most_queries];
      float* to[most_queries];
      // A group of more heads than a call takes is divided.
      int all = piece.count * group;
      const float* from =
          queries + (std::ptrdiff_t(piece.head) * tokens + piece.start + piece.first) * group * dim;
      for (int first = 0; first < all; first += most_queries) {
        int count = std::min(most_queries, all - first);
        for (int q = 0; q < count; ++q) {
          int token = piece.first + (first + q) / group,
              head = piece.head * group + (first + q) % group;
          seen[q] = sequence.offset + token + 1;
          to[q] = y + (std::ptrdiff_t(piece.start + token) * heads.queries + head) * dim;
        }
        kernels->attend(from + std::ptrdiff_t(first) * dim, count, seen, sequence.keys + of_head,
                        across, sequence.values + of_head, dim, to, memory);
      }
    });
  }

  static int blocks(const Sequence& sequence) {
    return (sequence.offset + sequence.tokens + key_block - 1) / key_block;
  }

  Heads heads;
  const std::vector<Sequence>& sequences;
  int tokens = 0;
};
