//! A quantised matrix and its products.

use mlx_rs::{Array, error::Exception};

use super::{
    dequantize_affine::expand_affine,
    device::Device,
    dtype::Dtype,
    ffi::{self, Parts},
    mapped,
    quantization::Quantization,
};
use crate::error::{Error, Result};

/// A quantised matrix `[rows, width]`, or matrices `[..., rows, width]`.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedMatrix {
    /// u32 `[rows, width · bits / 32]`.
    pub(crate) weight: Array,
    /// `[rows, width / group_size]`.
    pub(crate) scales: Array,
    /// Shape of `scales`; affine only.
    pub(crate) biases: Option<Array>,
    pub(crate) quantization: Quantization,
}

impl QuantizedMatrix {
    /// Quantises a floating-point matrix.
    pub(crate) fn quantize(matrix: &Array, quantization: Quantization) -> Result<Self> {
        let mut parts = ffi::quantize(matrix, quantization)?.into_iter();
        let (Some(weight), Some(scales)) = (parts.next(), parts.next()) else {
            return Err(malformed("MLX quantised a matrix to fewer than two arrays"));
        };
        Ok(Self {
            weight,
            scales,
            biases: parts.next(),
            quantization,
        })
    }

    /// The matrix in floating point, of type `dtype`.
    pub(crate) fn dequantize(&self, dtype: mlx_rs::Dtype) -> Result<Array> {
        ffi::dequantize(self.parts(), self.quantization, dtype)
    }

    /// The matrix in type `dtype`, computed in f32, where the products are exact, and rounded
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

    /// Like `dequantize`, but computed at once on the CPU; scales and `biases` are f32.
    fn expand_affine(&self, biases: &Array) -> Result<Array> {
        let (bits, group_size) = (self.quantization.bits(), self.quantization.group_size());
        let [rows, groups] = *self.scales.shape() else {
            return Err(malformed(
                "the scales of a quantised matrix are not a matrix",
            ));
        };
        let numbers = self.scales.size() * group_size;
        if self.weight.size() * 32 != numbers * bits || biases.size() != self.scales.size() {
            return Err(malformed(
                "the parts of a quantised matrix have contradicting shapes",
            ));
        }
        let shape = [rows, groups * group_size as i32];
        let mut values = vec![0.0; mapped::ROOM + numbers];
        let arrays = [&self.weight, &self.scales, biases].map(|array| array.contiguous());
        let [weight, scales, biases] = arrays;
        let (weight, scales, biases) = (weight?, scales?, biases?);
        let unreadable = |error| malformed(&format!("a quantised matrix cannot be read: {error}"));
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
        ffi::quantized_matmul(x, self.parts(), self.quantization, true)
    }

    /// `x · W`, `[..., rows]` to `[..., width]`.
    pub(crate) fn matmul_rows(&self, x: &Array) -> Result<Array> {
        ffi::quantized_matmul(x, self.parts(), self.quantization, false)
    }

    /// The result of `map` for each array.
    pub(crate) fn map(&self, map: impl Fn(&Array) -> Result<Array>) -> Result<Self> {
        Ok(Self {
            weight: map(&self.weight)?,
            scales: map(&self.scales)?,
            biases: self.biases.as_ref().map(&map).transpose()?,
            quantization: self.quantization,
        })
    }

    /// The packed numbers, the scales and the biases.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        [&self.weight, &self.scales].into_iter().chain(&self.biases)
    }

    fn parts(&self) -> Parts<'_> {
        Parts {
            weight: &self.weight,
            scales: &self.scales,
            biases: self.biases.as_ref(),
        }
    }

    /// The rows `ids`, still quantised.
    pub(crate) fn take_rows(&self, ids: &Array) -> Result<Self> {
        self.map(|part| Ok(part.take_axis(ids, 0)?))
    }
}

fn malformed(problem: &str) -> Error {
    Exception::custom(problem).into()
}
