//! A matrix of the checkpoint: a projection without bias, or the embedding, or both.

use mlx_rs::{Array, ops::matmul};

use crate::{dtype::Dtype, error::Result, packed::PackedMatrix};

/// `y = x · Wᵀ`, and look-up of rows, for a matrix as stored or quantised.
#[derive(Debug, Clone)]
pub(crate) enum Linear {
    /// `[out, in]`, as in the checkpoint.
    Dense(Array),
    /// The same, packed.
    Packed(PackedMatrix),
}

impl Linear {
    /// `[..., in]` to `[..., out]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(weight) => Ok(matmul(x, weight.t())?),
            Self::Packed(matrix) => matrix.matmul(x),
        }
    }

    /// The rows `ids` `[B, L]`, as `[B, L, in]` of type `dtype`.
    pub(crate) fn rows(&self, ids: &Array, dtype: Dtype) -> Result<Array> {
        match self {
            Self::Dense(weight) => Ok(weight.take_axis(ids, 0)?),
            Self::Packed(matrix) => matrix.take_rows(ids)?.dequantize(dtype.mlx()),
        }
    }
}
