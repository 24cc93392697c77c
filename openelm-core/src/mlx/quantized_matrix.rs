//! A quantised matrix, and the MLX operations on it; and MLX's groups of processes.
//!
//! `mlx-rs` offers the affine mode only, no groups and no version, so these calls go to mlx-c
//! directly. With `mapped.rs` these are the crate's places with `unsafe`.
#![allow(unsafe_code)] // The calls below hold to mlx-c's contract, stated at each.

use std::{ffi::CStr, sync::Once};

use mlx_rs::{Array, Stream, error::Exception};

use super::{
    dequantize_affine::expand_affine,
    dtype::{Device, Dtype},
    mapped,
    quantization::{Quantization, QuantizationMode},
};
use crate::error::Result;

/// A matrix `[rows, width]` in packed form.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedMatrix {
    /// u32 `[rows, width · bits / 32]`.
    pub(crate) weight: Array,
    /// `[rows, width / group_size]`.
    pub(crate) scales: Array,
    /// As `scales`; affine only.
    pub(crate) biases: Option<Array>,
    pub(crate) quantization: Quantization,
}

impl QuantizedMatrix {
    /// Packs a floating-point matrix.
    pub(crate) fn quantize(matrix: &Array, quantization: Quantization) -> Result<Self> {
        ready();
        let stream = Stream::thread_local_or_default();
        let null = Null::new();
        // SAFETY: every handle is live for the call; `parts` is freed below; MLX's exceptions
        // come back as a status.
        let parts = unsafe {
            let mut parts = mlx_sys::mlx_vector_array_new();
            let status = mlx_sys::mlx_quantize(
                &raw mut parts,
                matrix.as_ptr(),
                some(quantization.group_size()),
                some(quantization.bits()),
                mode(quantization).as_ptr(),
                null.0,
                stream.as_ptr(),
            );
            let arrays = (status == 0).then(|| {
                (0..mlx_sys::mlx_vector_array_size(parts))
                    .map(|i| {
                        let mut array = mlx_sys::mlx_array_new();
                        mlx_sys::mlx_vector_array_get(&raw mut array, parts, i);
                        Array::from_ptr(array)
                    })
                    .collect::<Vec<_>>()
            });
            mlx_sys::mlx_vector_array_free(parts);
            arrays.ok_or_else(|| failed("quantize"))?
        };
        let mut parts = parts.into_iter();
        match (parts.next(), parts.next()) {
            (Some(weight), Some(scales)) => Ok(Self {
                weight,
                scales,
                biases: parts.next(),
                quantization,
            }),
            _ => Err(failed("quantize").into()),
        }
    }

    /// The matrix, or the rows that were taken, in the type of the scales or `dtype`.
    pub(crate) fn dequantize(&self, dtype: mlx_rs::Dtype) -> Result<Array> {
        ready();
        let stream = Stream::thread_local_or_default();
        let null = Null::new();
        let dtype = mlx_sys::mlx_optional_dtype {
            value: dtype.into(),
            has_value: true,
        };
        // SAFETY: as above; the result handle is owned by the returned array.
        unsafe {
            let mut result = mlx_sys::mlx_array_new();
            let status = mlx_sys::mlx_dequantize(
                &raw mut result,
                self.weight.as_ptr(),
                self.scales.as_ptr(),
                self.biases.as_ref().map_or(null.0, Array::as_ptr),
                some(self.quantization.group_size()),
                some(self.quantization.bits()),
                mode(self.quantization).as_ptr(),
                null.0,
                dtype,
                stream.as_ptr(),
            );
            own(result, status, "dequantize")
        }
    }

    /// The matrix in type `dtype`, worked out in f32, where the products are exact, and rounded
    /// once.
    pub(crate) fn expand(mut self, dtype: Dtype) -> Result<Array> {
        let float32 = mlx_rs::Dtype::Float32;
        let matrix = match self.biases.take() {
            None => self.dequantize(float32)?,
            Some(biases) => {
                self.scales = self.scales.as_dtype(float32)?;
                let biases = biases.as_dtype(float32)?;
                match Device::current()? {
                    Device::Cpu => self.expand_affine(&biases)?,
                    Device::Gpu => {
                        self.biases = Some(biases);
                        self.dequantize(float32)?
                    }
                }
            }
        };
        Ok(match dtype {
            Dtype::Float32 => matrix,
            dtype => matrix.as_dtype(dtype.mlx())?,
        })
    }

    /// As `dequantize`, computed here and now; scales and `biases` are f32.
    fn expand_affine(&self, biases: &Array) -> Result<Array> {
        let (bits, group_size) = (self.quantization.bits(), self.quantization.group_size());
        let [rows, groups] = *self.scales.shape() else {
            return Err(failed("expanding scales of another rank").into());
        };
        let shape = [rows, groups * group_size as i32];
        let mut values = vec![0.0; mapped::ROOM + self.scales.size() * group_size];
        let arrays = [&self.weight, &self.scales, biases].map(|array| array.contiguous());
        let [weight, scales, biases] = arrays;
        let (weight, scales, biases) = (weight?, scales?, biases?);
        let unreadable = |error| failed(&format!("expanding: {error}"));
        expand_affine(
            weight.try_as_slice::<u32>().map_err(unreadable)?,
            scales.try_as_slice::<f32>().map_err(unreadable)?,
            biases.try_as_slice::<f32>().map_err(unreadable)?,
            bits,
            group_size,
            &mut values[mapped::ROOM..],
        );
        mapped::floats(values, &shape)
    }

    /// `x · Wᵀ`, `[..., width]` to `[..., rows]`.
    pub(crate) fn matmul(&self, x: &Array) -> Result<Array> {
        ready();
        let stream = Stream::thread_local_or_default();
        let null = Null::new();
        // SAFETY: as above.
        unsafe {
            let mut result = mlx_sys::mlx_array_new();
            let status = mlx_sys::mlx_quantized_matmul(
                &raw mut result,
                x.as_ptr(),
                self.weight.as_ptr(),
                self.scales.as_ptr(),
                self.biases.as_ref().map_or(null.0, Array::as_ptr),
                true,
                some(self.quantization.group_size()),
                some(self.quantization.bits()),
                mode(self.quantization).as_ptr(),
                stream.as_ptr(),
            );
            own(result, status, "quantized_matmul")
        }
    }

    /// The rows `ids`, still packed.
    pub(crate) fn take_rows(&self, ids: &Array) -> Result<Self> {
        Ok(Self {
            weight: self.weight.take_axis(ids, 0)?,
            scales: self.scales.take_axis(ids, 0)?,
            biases: self
                .biases
                .as_ref()
                .map(|b| b.take_axis(ids, 0))
                .transpose()?,
            quantization: self.quantization,
        })
    }
}

/// Processes that compute together, as MLX has them.
#[derive(Debug)]
pub(crate) struct Processes(mlx_sys::mlx_distributed_group);

impl Processes {
    /// Joins the group that the environment describes, by whichever of MLX's backends does.
    pub(crate) fn join() -> Result<Self> {
        ready();
        // SAFETY: the handle is empty until the call fills it, and freed by `drop` alone.
        unsafe {
            let mut group = Self(mlx_sys::mlx_distributed_group_new());
            match mlx_sys::mlx_distributed_init(&raw mut group.0, true, std::ptr::null()) {
                0 => Ok(group),
                _ => Err(failed("joining the group of processes").into()),
            }
        }
    }

    pub(crate) fn rank(&self) -> usize {
        // SAFETY: the handle is that of a joined group.
        unsafe { mlx_sys::mlx_distributed_group_rank(self.0) as usize }
    }

    pub(crate) fn size(&self) -> usize {
        // SAFETY: as above.
        unsafe { mlx_sys::mlx_distributed_group_size(self.0) as usize }
    }

    /// The sum of every process' `x`, in all of them.
    pub(crate) fn all_sum(&self, x: &Array) -> Result<Array> {
        ready();
        let stream = Stream::thread_local_or_default();
        // SAFETY: every handle is live for the call; the result handle is owned by the returned
        // array. On a GPU MLX itself moves what its backend sends to the stream it needs.
        unsafe {
            let mut result = mlx_sys::mlx_array_new();
            let status = mlx_sys::mlx_distributed_all_sum(
                &raw mut result,
                x.as_ptr(),
                self.0,
                stream.as_ptr(),
            );
            own(result, status, "all_sum")
        }
    }
}

impl Drop for Processes {
    fn drop(&mut self) {
        // SAFETY: frees the handle made in `join`, once.
        unsafe { mlx_sys::mlx_distributed_group_free(self.0) };
    }
}

/// An absent array argument.
struct Null(mlx_sys::mlx_array);

impl Null {
    fn new() -> Self {
        // SAFETY: makes an empty handle.
        Self(unsafe { mlx_sys::mlx_array_new() })
    }
}

impl Drop for Null {
    fn drop(&mut self) {
        // SAFETY: frees the handle made in `new`, once.
        unsafe { mlx_sys::mlx_array_free(self.0) };
    }
}

/// The version of the MLX library that runs.
pub(crate) fn mlx_version() -> Result<String> {
    ready();
    // SAFETY: the string is live until it is freed, and is copied before.
    unsafe {
        let mut text = mlx_sys::mlx_string_new();
        let status = mlx_sys::mlx_version(&raw mut text);
        let data = mlx_sys::mlx_string_data(text);
        let version = (status == 0 && !data.is_null())
            .then(|| CStr::from_ptr(data).to_string_lossy().into_owned());
        mlx_sys::mlx_string_free(text);
        version.ok_or_else(|| failed("version").into())
    }
}

/// mlx-c's own error handler ends the process; any fallible call through `mlx-rs` replaces it. The
/// one chosen touches no GPU: MLX loads its kernels with the device, and where they lie may not have
/// been said yet.
fn ready() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Where there is no GPU, there is no path to tell: an error, and the handler is in place.
        #[cfg(feature = "metal")]
        let _ = mlx_rs::metal::metallib_path();
        #[cfg(not(feature = "metal"))]
        let _ = mlx_rs::memory::active_memory();
    });
}

fn some(value: usize) -> mlx_sys::mlx_optional_int {
    mlx_sys::mlx_optional_int {
        value: value as i32,
        has_value: true,
    }
}

fn mode(quantization: Quantization) -> &'static CStr {
    match quantization.mode() {
        QuantizationMode::Affine => c"affine",
        QuantizationMode::Mxfp4 => c"mxfp4",
        QuantizationMode::Mxfp8 => c"mxfp8",
        QuantizationMode::Nvfp4 => c"nvfp4",
    }
}

fn failed(operation: &str) -> Exception {
    Exception::custom(format!("{operation} failed"))
}

/// # Safety
/// `result` must be a handle that nothing else frees.
unsafe fn own(result: mlx_sys::mlx_array, status: i32, operation: &str) -> Result<Array> {
    // SAFETY: passed on to the caller.
    let array = unsafe { Array::from_ptr(result) };
    if status == 0 {
        Ok(array)
    } else {
        Err(failed(operation).into())
    }
}
