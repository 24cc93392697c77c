// Products by OpenBLAS.
#pragma once

// On the thread of the caller: C[m, n] = A[m, k] · B[n, k]ᵀ, in row-major order; C has a row per
// `stride`.
void multiply_on_this_thread(int m, int n, int k, const float* a, const float* b, float* c,
                             int stride);

// On all threads: C[m, n] = A[m, k] · B[k, n], added to C if `adds`; A has a row per `stride`.
void multiply_by_rows(int m, int n, int k, const float* a, int stride, const float* b, bool adds,
                      float* c);

// On all threads: C[m, n] = A[m, k] · B[n, k]ᵀ.
void multiply_on_all_threads(int m, int n, int k, const float* a, const float* b, float* c);
