//! MLX primitives of this project for the CPU backend (`setup/native`): products with 16-bit and
//! quantised weights in f32, attention over KV caches, row look-up. They exist on Linux on x86-64;
//! elsewhere MLX's operations take their place.
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

/// A RMSNorm before a product: its weight f32 `[in]`, and its epsilon.
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

pub(crate) use implementation::CpuPrimitives;

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod implementation {
    use std::ffi::{CStr, c_char, c_int};

    use mlx_rs::{Array, Stream, error::Exception};

    use super::{Attended, Device, Heads, Matrix, Norm, Result, Span, Then};
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

    use super::{Attended, Device, Heads, Matrix, Norm, Result, Span, Then};

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
mod tests {
    use std::slice::from_ref;

    use mlx_rs::{
        Dtype as MlxDtype,
        fast::rms_norm,
        ops::{indexing::TryIndexOp, matmul, sigmoid},
        random,
        transforms::fallible_vjp,
    };

    use super::*;
    use crate::mlx::{Quantization, QuantizationMode, QuantizedMatrix};

    fn normal(seed: u64, shape: &[i32]) -> Array {
        let key = random::key(seed).unwrap();
        random::normal::<f32>(shape, None, None, &key).unwrap()
    }

    /// A matrix `[rows, width]` of every kind.
    fn matrices(rows: i32, width: i32) -> Vec<Matrix> {
        let values = normal(1, &[rows, width]);
        let mut all = vec![Matrix::Dense(values.clone())];
        for dtype in [MlxDtype::Bfloat16, MlxDtype::Float16] {
            all.push(Matrix::Stored(values.as_dtype(dtype).unwrap()));
        }
        let affine = [2, 3, 4, 5, 6, 8].map(|bits| (QuantizationMode::Affine, Some(bits)));
        let modes = [
            QuantizationMode::Mxfp4,
            QuantizationMode::Mxfp8,
            QuantizationMode::Nvfp4,
        ];
        for (mode, bits) in affine.into_iter().chain(modes.map(|mode| (mode, None))) {
            let quantization = Quantization::new(mode, bits, None).unwrap();
            let matrix = QuantizedMatrix::quantize(&values, quantization).unwrap();
            if mode == QuantizationMode::Affine {
                let mut half = matrix.clone();
                half.scales = half.scales.as_dtype(MlxDtype::Bfloat16).unwrap();
                half.biases = half.biases.map(|b| b.as_dtype(MlxDtype::Bfloat16).unwrap());
                all.push(Matrix::Quantized(half));
            }
            all.push(Matrix::Quantized(matrix));
        }
        all
    }

    fn assert_near(found: &Array, expected: &Array, what: &str) {
        assert_eq!(found.shape(), expected.shape(), "{what}");
        let error = found.subtract(expected).unwrap().abs().unwrap();
        let error = error.max(None).unwrap().to_vec_exact::<f32>().unwrap()[0];
        let largest = expected.abs().unwrap().max(None).unwrap();
        let largest = largest.to_vec_exact::<f32>().unwrap()[0];
        assert!(error <= 4e-6 * largest, "{what}: {error} of {largest}");
    }

    fn primitives() -> Option<CpuPrimitives> {
        CpuPrimitives::of(Device::current().unwrap())
    }

    #[test]
    fn products_and_rows_are_those_of_the_expanded_matrix() {
        let Some(primitives) = primitives() else {
            return;
        };
        let (rows, width) = (96, 128);
        for (i, matrix) in matrices(rows, width).iter().enumerate() {
            let expanded = matrix.float32().unwrap();
            let ids = Array::from_slice(&[5_u32, 0, 95], &[1, 3]);
            let found = primitives.rows(&ids, matrix).unwrap();
            let expected = expanded.take_axis(&ids, 0).unwrap();
            assert_near(&found, &expected, &format!("rows of matrix {i}"));
            for count in [1, 4, 40] {
                let x = normal(2, &[1, count, width]);
                let weight = normal(3, &[width]);
                let norm = Norm {
                    weight: &weight,
                    eps: 1e-6,
                };
                let plain = matmul(&x, expanded.t()).unwrap();
                let normed = rms_norm(&x, Some(&weight), 1e-6).unwrap();
                let normed = matmul(&normed, expanded.t()).unwrap();
                let residual = normal(4, &[1, count, rows]);
                let gate = normed.try_index((.., .., ..rows / 2)).unwrap();
                let up = normed.try_index((.., .., rows / 2..)).unwrap();
                let silu = gate.multiply(sigmoid(&gate).unwrap()).unwrap();
                for (norm, then, expected) in [
                    (None, Then::Nothing, plain.clone()),
                    (None, Then::Add(&residual), plain.add(&residual).unwrap()),
                    (Some(norm), Then::Nothing, normed.clone()),
                    (Some(norm), Then::Swiglu, silu.multiply(up).unwrap()),
                ] {
                    let found = primitives.linear(&x, matrix, norm, then).unwrap();
                    assert_near(&found, &expected, &format!("matrix {i}, {count}, {then:?}"));
                }
            }
        }
    }

    #[test]
    fn gradients_are_those_of_the_expanded_matrix() {
        let Some(primitives) = primitives() else {
            return;
        };
        for matrix in matrices(96, 128) {
            let expanded = matrix.float32().unwrap();
            let (x, cotangent) = (normal(2, &[2, 5, 128]), normal(3, &[2, 5, 96]));
            let forward = |x: &[Array]| {
                let y = primitives
                    .linear(&x[0], &matrix, None, Then::Nothing)
                    .unwrap();
                Ok::<_, mlx_rs::error::Exception>(vec![y])
            };
            let (_, gradient) = fallible_vjp(forward, &[x], from_ref(&cotangent)).unwrap();
            assert_near(
                &gradient[0],
                &matmul(cotangent, expanded).unwrap(),
                "gradient",
            );
        }
    }

    #[test]
    fn arguments_that_do_not_fit_are_errors() {
        let Some(primitives) = primitives() else {
            return;
        };
        let matrix = Matrix::Dense(normal(1, &[6, 4]));
        let x = normal(2, &[3, 4]);
        let linear = |x: &Array, norm: Option<&Array>, then: Then<'_>| {
            let norm = norm.map(|weight| Norm { weight, eps: 0.0 });
            primitives
                .linear(x, &matrix, norm, then)
                .unwrap_err()
                .to_string()
        };
        let half = x.as_dtype(MlxDtype::Float16).unwrap();
        for message in [
            linear(&normal(2, &[3, 5]), None, Then::Nothing),
            linear(&half, None, Then::Nothing),
            linear(&x, Some(&normal(3, &[5])), Then::Nothing),
            linear(&x, None, Then::Add(&normal(3, &[3, 5]))),
        ] {
            assert!(message.contains("fit"), "{message}");
        }
        let integers = Matrix::Dense(x.as_dtype(MlxDtype::Int32).unwrap());
        let error = primitives
            .linear(&x, &integers, None, Then::Nothing)
            .unwrap_err();
        assert!(error.to_string().contains("floating"), "{error}");
        let heads = Heads {
            queries: 2,
            keys: 1,
            head_dim: 4,
            norms: None,
        };
        let span = Span {
            offset: 3,
            length: 1,
        };
        let (qkv, table) = (normal(4, &[1, 1, 16]), normal(5, &[1, 1, 2]));
        let error = primitives
            .attend(&qkv, [&table, &table], heads, &[span], &[None], 256)
            .unwrap_err();
        assert!(error.to_string().contains("cache"), "{error}");
    }
}
