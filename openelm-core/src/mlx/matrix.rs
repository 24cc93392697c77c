//! A matrix in floating point or quantised.

use mlx_rs::{Array, ops::matmul};

use super::quantized_matrix::QuantizedMatrix;
use crate::error::Result;

/// A matrix as stored or quantised, `W` `[out, in]`.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    /// The dtype of the checkpoint.
    Dense(Array),
    /// MLX's quantised form.
    Quantized(QuantizedMatrix),
}

impl Matrix {
    /// `x · Wᵀ`, `[..., in]` to `[..., out]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(weight) => Ok(matmul(x, weight.t())?),
            Self::Quantized(matrix) => matrix.matmul(x),
        }
    }

    /// `[out, in]`, in f32.
    pub(crate) fn float32(&self) -> Result<Array> {
        let float32 = mlx_rs::Dtype::Float32;
        match self {
            Self::Dense(weight) => Ok(weight.as_dtype(float32)?),
            Self::Quantized(matrix) => matrix.dequantize(float32),
        }
    }
}
