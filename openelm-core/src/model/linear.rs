//! A matrix of the checkpoint with its adapters: a projection without bias, the embedding, or a
//! tied embedding and head.

use mlx_rs::Array;

use super::lora::LowRank;
use crate::{
    error::Result,
    mlx::{Dtype, Matrix},
};

/// A function of a projection's name and the projection.
pub(crate) type LinearVisitor<'a> = dyn FnMut(&str, &mut Linear) -> Result<()> + 'a;

/// A function of a norm's name and its weight; true if it changed the weight.
pub(crate) type NormVisitor<'a> = dyn FnMut(&str, &mut Array) -> Result<bool> + 'a;

/// `y = x · Wᵀ`, and row look-up, with the low-rank additions of any number of adapters.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    adapters: Vec<LowRank>,
}

impl Linear {
    /// The matrix without adapters.
    pub(crate) fn new(matrix: Matrix) -> Self {
        Self {
            matrix,
            adapters: Vec::new(),
        }
    }

    /// The matrix `[out, in]`, if it is neither quantised nor adapted.
    pub(crate) fn plain_weight(&self) -> Option<&Array> {
        match &self.matrix {
            Matrix::Dense(matrix) if self.adapters.is_empty() => Some(matrix),
            _ => None,
        }
    }

    /// Replaces the adapters of the matrix.
    pub(crate) fn set_adapters(&mut self, adapters: Vec<LowRank>) {
        self.adapters = adapters;
    }

    /// `[..., in]` to `[..., out]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let base = self.matrix.forward(x)?;
        let mut y = None;
        for adapter in &self.adapters {
            y = Some(adapter.add(y.as_ref(), &base, x, &self.matrix)?);
        }
        Ok(y.unwrap_or(base))
    }

    /// The rows `ids` `[B, L]`, as `[B, L, in]` of type `dtype`.
    pub(crate) fn rows(&self, ids: &Array, dtype: Dtype) -> Result<Array> {
        let base = match &self.matrix {
            Matrix::Dense(weight) => weight.take_axis(ids, 0)?,
            Matrix::Quantized(matrix) => matrix.take_rows(ids)?.dequantize(dtype.mlx())?,
        };
        let mut rows = base.clone();
        for adapter in &self.adapters {
            rows = adapter.add_rows(&rows, &base, ids)?;
        }
        Ok(rows)
    }
}
