//! A matrix in floating point or quantised.

use mlx_rs::{Array, ops::matmul};

use super::{
    Device, Dtype,
    primitives::{CpuPrimitives, Then},
    quantized_matrix::QuantizedMatrix,
};
use crate::error::Result;

/// A matrix as stored or quantised, `W` `[out, in]`.
#[derive(Debug, Clone)]
pub(crate) enum Matrix {
    /// Of the activations' type.
    Dense(Array),
    /// As the checkpoint stores it, in 16 bits, for activations in f32: only where there are
    /// [`CpuPrimitives`].
    Stored(Array),
    /// MLX's quantised form.
    Quantized(QuantizedMatrix),
}

impl Matrix {
    /// A floating-point matrix for activations of type `dtype`.
    pub(crate) fn floating(values: Array, dtype: Dtype) -> Self {
        let is_half = dtype == Dtype::Float32 && values.dtype() != mlx_rs::Dtype::Float32;
        if is_half {
            Self::Stored(values)
        } else {
            Self::Dense(values)
        }
    }

    /// False for a vector, such as the weight of a norm.
    pub(crate) fn is_matrix(&self) -> bool {
        match self {
            Self::Dense(values) | Self::Stored(values) => values.ndim() == 2,
            Self::Quantized(_) => true,
        }
    }

    /// The matrix for products with activations in f32: in f32 itself where there are no
    /// [`CpuPrimitives`].
    pub(crate) fn for_float32(self) -> Result<Self> {
        match (&self, CpuPrimitives::of(Device::current()?)) {
            (Self::Dense(_), _) | (_, Some(_)) => Ok(self),
            (_, None) => Ok(Self::Dense(self.float32()?)),
        }
    }

    /// `x · Wᵀ`, `[..., in]` to `[..., out]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Dense(weight) => Ok(matmul(x, weight.t())?),
            Self::Stored(weight) => match primitives(x)? {
                Some(primitives) => primitives.linear(x, self, None, Then::Nothing),
                None => Ok(matmul(x, weight.as_dtype(x.dtype())?.t())?),
            },
            Self::Quantized(matrix) => match primitives(x)? {
                Some(primitives) => primitives.linear(x, self, None, Then::Nothing),
                None => matrix.matmul(x),
            },
        }
    }

    /// The rows `ids`, of type `dtype`.
    pub(crate) fn rows(&self, ids: &Array, dtype: Dtype) -> Result<Array> {
        let primitives = match self {
            Self::Dense(_) => None,
            _ if dtype == Dtype::Float32 => CpuPrimitives::of(Device::current()?),
            _ => None,
        };
        match (self, primitives) {
            (_, Some(primitives)) => primitives.rows(ids, self),
            (Self::Dense(weight), None) => Ok(weight.take_axis(ids, 0)?),
            (Self::Stored(weight), None) => Ok(weight.take_axis(ids, 0)?.as_dtype(dtype.mlx())?),
            (Self::Quantized(matrix), None) => matrix.take_rows(ids)?.dequantize(dtype.mlx()),
        }
    }

    /// `[out, in]`, in f32.
    pub(crate) fn float32(&self) -> Result<Array> {
        let float32 = mlx_rs::Dtype::Float32;
        match self {
            Self::Dense(weight) | Self::Stored(weight) => Ok(weight.as_dtype(float32)?),
            // Scales in 16 bits would round the values.
            Self::Quantized(matrix) => matrix.clone().expand(Dtype::Float32),
        }
    }
}

/// The primitives, if they multiply `x`.
fn primitives(x: &Array) -> Result<Option<CpuPrimitives>> {
    if x.dtype() != mlx_rs::Dtype::Float32 {
        return Ok(None);
    }
    Ok(CpuPrimitives::of(Device::current()?))
}
