// The C interface of primitives.cpp, with the conventions of mlx-c: a function returns 0, or 1
// after it has called MLX's error handler.
#pragma once
#include <stdbool.h>

#include "mlx/c/array.h"
#include "mlx/c/stream.h"
#include "mlx/c/vector.h"

#ifdef __cplusplus
extern "C" {
#endif

// True if the processor has the instructions of the kernels: AVX2, FMA and F16C.
bool openelm_has_kernels();

// A matrix [rows, width]: floating-point values, or MLX's quantised form.
typedef struct openelm_matrix_ {
  mlx_array values;
  mlx_array scales; // empty if the matrix is not quantised
  mlx_array biases; // empty but in affine mode
  int bits, group_size;
  const char* mode;
} openelm_matrix;

// x · Wᵀ in f32, of x [.., width]; of its RMSNorm, if `norm` is not empty. Then either SwiGLU of
// both halves, or the sum with `residual`, if it is not empty. A product alone has a gradient, for
// x.
int openelm_linear(mlx_array* result, mlx_array x, openelm_matrix matrix, mlx_array norm, float eps,
                   mlx_array residual, bool swiglu, mlx_stream stream);

// The rows `ids` of a matrix, in f32. Rows that the matrix does not have are NaN.
int openelm_rows(mlx_array* result, mlx_array ids, openelm_matrix matrix, mlx_stream stream);

// RMSNorm of x [.., heads, width] with a weight [heads, width], or [width] for all rows. Both have
// gradients.
int openelm_rms_norm(mlx_array* result, mlx_array x, mlx_array weight, float eps,
                     mlx_stream stream);

// silu(gate) · up of x [.., 2 · width], which has the gates first; with its gradient.
int openelm_swiglu(mlx_array* result, mlx_array x, mlx_stream stream);

// The softmax of each row of x [.., width], its largest number [.., 1], and the sum [.., 1] of the
// exponentials of the differences from it. They have no gradients.
int openelm_softmax(mlx_vector_array* results, mlx_array x, mlx_stream stream);

// The sequences of a pass over their caches.
typedef struct openelm_attention_ {
  int query_heads, key_heads, head_dim;
  float eps, scale;
  int sequences;
  const int *offsets, *lengths;
  int step; // growth of a full cache, in positions
} openelm_attention;

// Attention of qkv [.., L, heads · head_dim], whose tokens continue several sequences in turn:
// norms (which may be empty), rotation, and causal attention over each cache. `caches` has keys and
// values [1, key_heads, capacity, head_dim] of each sequence; `results` the attention, then the
// caches with the new positions.
int openelm_attend(mlx_vector_array* results, mlx_array qkv, mlx_array cosines, mlx_array sines,
                   mlx_array query_norm, mlx_array key_norm, mlx_vector_array caches,
                   openelm_attention attention_of, mlx_stream stream);

#ifdef __cplusplus
}
#endif
