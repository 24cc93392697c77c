//! MLX primitives of this project for the CPU backend (`setup/native`): products with 16-bit and
//! quantised weights in f32, attention over KV caches, row look-up, RMSNorm, SwiGLU and softmax. They
//! exist on Linux on x86-64; elsewhere MLX's operations take their place.
#![allow(
    unsafe_code,
    reason = "each call states how it keeps the C interface's contract"
)]

use mlx_rs::Array;

use super::{Device, Matrix};
use crate::error::Result;

/// What follows a product.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Then<'a> {
    Nothing,
    /// The sum with an array of the product's shape.
    Add(&'a Array),
    /// `silu(gate) · up` of the product's halves.
    Swiglu,
}

/// A RMSNorm: its weight f32, and its epsilon. Before a product the weight is `[in]`.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Norm<'a> {
    pub(crate) weight: &'a Array,
    pub(crate) eps: f32,
}

/// The heads of a layer.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Heads<'a> {
    pub(crate) queries: i32,
    pub(crate) keys: i32,
    pub(crate) head_dim: i32,
    /// The norms of queries and of keys, f32 `[head_dim]`, and their epsilon.
    pub(crate) norms: Option<(&'a Array, &'a Array, f32)>,
}

/// New tokens of one sequence: the number of positions before them, and theirs.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) offset: usize,
    pub(crate) length: usize,
}

/// The attention of a pass, and the caches with its positions.
#[derive(Debug)]
pub(crate) struct Attended {
    /// f32 `[1, L, queries · head_dim]`.
    pub(crate) output: Array,
    /// Keys and values of each sequence.
    pub(crate) caches: Vec<(Array, Array)>,
}

/// A softmax over the last axis, and its parts: `exp(x - largest) / sum`.
#[derive(Debug)]
pub(crate) struct SoftmaxParts {
    /// f32, in the shape of the input.
    pub(crate) probabilities: Array,
    /// f32 `[..., 1]`.
    pub(crate) largest: Array,
    /// f32 `[..., 1]`.
    pub(crate) sums: Array,
}

pub(crate) use implementation::CpuPrimitives;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod implementation {
    use std::ffi::{CStr, c_char, c_int};

    use mlx_rs::{Array, Stream, error::Exception};

    use super::{Attended, Device, Heads, Matrix, Norm, Result, SoftmaxParts, Span, Then};
    use crate::{error::Error, mlx::ffi};

    /// `openelm_matrix` of `primitives.h`.
    #[repr(C)]
    #[derive(Clone, Copy)]
    struct RawMatrix {
        values: mlx_sys::mlx_array,
        scales: mlx_sys::mlx_array,
        biases: mlx_sys::mlx_array,
        bits: c_int,
        group_size: c_int,
        mode: *const c_char,
    }

    /// `openelm_attention` of `primitives.h`.
    #[repr(C)]
    struct RawAttention {
        query_heads: c_int,
        key_heads: c_int,
        head_dim: c_int,
        eps: f32,
        scale: f32,
        sequences: c_int,
        offsets: *const c_int,
        lengths: *const c_int,
        step: c_int,
    }

    // Of `primitives.h`; MLX's CPU backend runs them.
    unsafe extern "C" {
        fn openelm_has_kernels() -> bool;
        fn openelm_linear(
            result: *mut mlx_sys::mlx_array,
            x: mlx_sys::mlx_array,
            matrix: RawMatrix,
            norm: mlx_sys::mlx_array,
            eps: f32,
            residual: mlx_sys::mlx_array,
            swiglu: bool,
            stream: mlx_sys::mlx_stream,
        ) -> c_int;
        fn openelm_rms_norm(
            result: *mut mlx_sys::mlx_array,
            x: mlx_sys::mlx_array,
            weight: mlx_sys::mlx_array,
            eps: f32,
            stream: mlx_sys::mlx_stream,
        ) -> c_int;
        fn openelm_swiglu(
            result: *mut mlx_sys::mlx_array,
            x: mlx_sys::mlx_array,
            stream: mlx_sys::mlx_stream,
        ) -> c_int;
        fn openelm_softmax(
            results: *mut mlx_sys::mlx_vector_array,
            x: mlx_sys::mlx_array,
            stream: mlx_sys::mlx_stream,
        ) -> c_int;
        fn openelm_rows(
            result: *mut mlx_sys::mlx_array,
            ids: mlx_sys::mlx_array,
            matrix: RawMatrix,
            stream: mlx_sys::mlx_stream,
        ) -> c_int;
        fn openelm_attend(
            results: *mut mlx_sys::mlx_vector_array,
            qkv: mlx_sys::mlx_array,
            cosines: mlx_sys::mlx_array,
            sines: mlx_sys::mlx_array,
            query_norm: mlx_sys::mlx_array,
            key_norm: mlx_sys::mlx_array,
            caches: mlx_sys::mlx_vector_array,
            attention: RawAttention,
            stream: mlx_sys::mlx_stream,
        ) -> c_int;
    }

    /// Proof that MLX computes on a CPU that has the primitives' instructions.
    #[derive(Debug, Clone, Copy)]
    pub(crate) struct CpuPrimitives(());

    impl CpuPrimitives {
        /// The primitives for code of `device`.
        pub(crate) fn of(device: Device) -> Option<Self> {
            // SAFETY: the function reads a constant.
            (device == Device::Cpu && unsafe { openelm_has_kernels() }).then_some(Self(()))
        }

        /// `x · Wᵀ` in f32, of `x` f32 `[..., in]` or of its norm; then `then`. A product alone has
        /// a gradient for `x`.
        pub(crate) fn linear(
            self,
            x: &Array,
            matrix: &Matrix,
            norm: Option<Norm<'_>>,
            then: Then<'_>,
        ) -> Result<Array> {
            ffi::ready();
            let null = ffi::Null::new();
            let stream = Stream::thread_local_or_default();
            let residual = match then {
                Then::Add(residual) => residual.as_ptr(),
                Then::Nothing | Then::Swiglu => null.0,
            };
            // SAFETY: every handle is live for the call; the result handle is owned by the returned
            // array.
            unsafe {
                let mut result = mlx_sys::mlx_array_new();
                let status = openelm_linear(
                    &raw mut result,
                    x.as_ptr(),
                    raw(matrix, &null),
                    norm.map_or(null.0, |norm| norm.weight.as_ptr()),
                    norm.map_or(0.0, |norm| norm.eps),
                    residual,
                    matches!(then, Then::Swiglu),
                    stream.as_ptr(),
                );
                ffi::own(result, status, "linear")
            }
        }

        /// RMSNorm of `x` f32 `[..., heads, width]` with a weight of its last axes, `[heads, width]`
        /// or `[width]`; with the gradients of both.
        pub(crate) fn rms_norm(self, x: &Array, norm: Norm<'_>) -> Result<Array> {
            ffi::ready();
            let stream = Stream::thread_local_or_default();
            // SAFETY: as above.
            unsafe {
                let mut result = mlx_sys::mlx_array_new();
                let (x, weight) = (x.as_ptr(), norm.weight.as_ptr());
                let status =
                    openelm_rms_norm(&raw mut result, x, weight, norm.eps, stream.as_ptr());
                ffi::own(result, status, "RMSNorm")
            }
        }

        /// `silu(gate) · up` of `x` f32 `[..., 2 · width]`, which has the gates first; with its
        /// gradient.
        pub(crate) fn swiglu(self, x: &Array) -> Result<Array> {
            ffi::ready();
            let stream = Stream::thread_local_or_default();
            // SAFETY: as above.
            unsafe {
                let mut result = mlx_sys::mlx_array_new();
                let status = openelm_swiglu(&raw mut result, x.as_ptr(), stream.as_ptr());
                ffi::own(result, status, "SwiGLU")
            }
        }

        /// The softmax over the last axis of `x` f32, without a gradient.
        pub(crate) fn softmax(self, x: &Array) -> Result<SoftmaxParts> {
            ffi::ready();
            let stream = Stream::thread_local_or_default();
            // SAFETY: the handles are live for the call; the vector is freed once, and the returned
            // arrays own their handles.
            let results = unsafe {
                let mut results = mlx_sys::mlx_vector_array_new();
                let status = openelm_softmax(&raw mut results, x.as_ptr(), stream.as_ptr());
                let results = ffi::taken(results);
                (status == 0).then_some(results)
            };
            let results = results.ok_or_else(|| ffi::failed("softmax"))?;
            let [probabilities, largest, sums] = <[Array; 3]>::try_from(results)
                .map_err(|_| Exception::custom("softmax: an output is missing"))?;
            Ok(SoftmaxParts {
                probabilities,
                largest,
                sums,
            })
        }

        /// The rows `ids` of `matrix`, f32 `[..., in]`.
        pub(crate) fn rows(self, ids: &Array, matrix: &Matrix) -> Result<Array> {
            ffi::ready();
            let null = ffi::Null::new();
            let stream = Stream::thread_local_or_default();
            // SAFETY: as above.
            unsafe {
                let mut result = mlx_sys::mlx_array_new();
                let (ids, matrix) = (ids.as_ptr(), raw(matrix, &null));
                let status = openelm_rows(&raw mut result, ids, matrix, stream.as_ptr());
                ffi::own(result, status, "rows")
            }
        }

        /// Causal attention of `qkv` f32 `[1, L, heads · head_dim]`, whose tokens continue several
        /// sequences in turn, over their `caches`, keys and values f32
        /// `[1, keys, capacity, head_dim]`. A cache without a second handle is written in place;
        /// a full one grows by `step`. `cosines` and `sines` are the rotation, f32 `[L, 1,
        /// head_dim/2]`.
        pub(crate) fn attend(
            self,
            qkv: &Array,
            [cosines, sines]: [&Array; 2],
            heads: Heads<'_>,
            spans: &[Span],
            caches: &[Option<(Array, Array)>],
            step: usize,
        ) -> Result<Attended> {
            ffi::ready();
            let null = ffi::Null::new();
            let stream = Stream::thread_local_or_default();
            let [offsets, lengths] =
                [|span: &Span| span.offset, |span: &Span| span.length].map(|part| {
                    spans
                        .iter()
                        .map(|span| part(span) as c_int)
                        .collect::<Vec<_>>()
                });
            let attention = RawAttention {
                query_heads: heads.queries,
                key_heads: heads.keys,
                head_dim: heads.head_dim,
                eps: heads.norms.map_or(0.0, |(_, _, eps)| eps),
                scale: (heads.head_dim as f32).powf(-0.5),
                sequences: spans.len() as c_int,
                offsets: offsets.as_ptr(),
                lengths: lengths.as_ptr(),
                step: step as c_int,
            };
            let [query_norm, key_norm] = match heads.norms {
                Some((queries, keys, _)) => [queries.as_ptr(), keys.as_ptr()],
                None => [null.0; 2],
            };
            let empty = Array::zeros::<f32>(&[1, heads.keys, 0, heads.head_dim])?;
            let empty = (empty.clone(), empty);
            // SAFETY: every handle and slice is live for the call; both vectors are freed below,
            // and the returned arrays own their handles.
            let results = unsafe {
                let before = mlx_sys::mlx_vector_array_new();
                for cache in caches {
                    let (keys, values) = cache.as_ref().unwrap_or(&empty);
                    mlx_sys::mlx_vector_array_append_value(before, keys.as_ptr());
                    mlx_sys::mlx_vector_array_append_value(before, values.as_ptr());
                }
                let mut after = mlx_sys::mlx_vector_array_new();
                let status = openelm_attend(
                    &raw mut after,
                    qkv.as_ptr(),
                    cosines.as_ptr(),
                    sines.as_ptr(),
                    query_norm,
                    key_norm,
                    before,
                    attention,
                    stream.as_ptr(),
                );
                mlx_sys::mlx_vector_array_free(before);
                let results = ffi::taken(after);
                (status == 0).then_some(results)
            };
            let mut results = results.ok_or_else(|| ffi::failed("attention"))?.into_iter();
            let incomplete = || Error::from(Exception::custom("attention: an output is missing"));
            let output = results.next().ok_or_else(incomplete)?;
            let mut caches = Vec::with_capacity(spans.len());
            while let (Some(keys), Some(values)) = (results.next(), results.next()) {
                caches.push((keys, values));
            }
            if caches.len() != spans.len() {
                return Err(incomplete());
            }
            Ok(Attended { output, caches })
        }
    }

    fn raw(matrix: &Matrix, null: &ffi::Null) -> RawMatrix {
        let dense = |values: &Array| RawMatrix {
            values: values.as_ptr(),
            scales: null.0,
            biases: null.0,
            bits: 0,
            group_size: 0,
            mode: c"".as_ptr(),
        };
        match matrix {
            Matrix::Dense(values) | Matrix::Stored(values) => dense(values),
            Matrix::Quantized(quantized) => {
                let mode: &'static CStr = ffi::mode(quantized.quantization);
                RawMatrix {
                    values: quantized.weight.as_ptr(),
                    scales: quantized.scales.as_ptr(),
                    biases: quantized.biases.as_ref().map_or(null.0, Array::as_ptr),
                    bits: quantized.quantization.bits() as c_int,
                    group_size: quantized.quantization.group_size() as c_int,
                    mode: mode.as_ptr(),
                }
            }
        }
    }
}

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
mod implementation {
    use mlx_rs::Array;

    use super::{Attended, Device, Heads, Matrix, Norm, Result, SoftmaxParts, Span, Then};

    /// Has no value: this system has no primitives.
    #[derive(Debug, Clone, Copy)]
    pub(crate) enum CpuPrimitives {}

    impl CpuPrimitives {
        pub(crate) fn of(_: Device) -> Option<Self> {
            None
        }

        pub(crate) fn linear(
            self,
            _: &Array,
            _: &Matrix,
            _: Option<Norm<'_>>,
            _: Then<'_>,
        ) -> Result<Array> {
            match self {}
        }

        pub(crate) fn rms_norm(self, _: &Array, _: Norm<'_>) -> Result<Array> {
            match self {}
        }

        pub(crate) fn swiglu(self, _: &Array) -> Result<Array> {
            match self {}
        }

        pub(crate) fn softmax(self, _: &Array) -> Result<SoftmaxParts> {
            match self {}
        }

        pub(crate) fn rows(self, _: &Array, _: &Matrix) -> Result<Array> {
            match self {}
        }

        pub(crate) fn attend(
            self,
            _: &Array,
            _: [&Array; 2],
            _: Heads<'_>,
            _: &[Span],
            _: &[Option<(Array, Array)>],
            _: usize,
        ) -> Result<Attended> {
            match self {}
        }
    }
}

#[cfg(test)]
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod tests;
