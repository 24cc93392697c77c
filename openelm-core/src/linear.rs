//! A linear map without bias; every projection in OpenELM is one.

use mlx_rs::{Array, ops::matmul};

use crate::error::Result;

/// `y = x · Wᵀ`.
#[derive(Debug)]
pub(crate) struct Linear {
    /// `[out, in]`, as in the checkpoint.
    weight: Array,
}

impl Linear {
    pub(crate) fn new(weight: Array) -> Self {
        Self { weight }
    }

    /// `[..., in]` to `[..., out]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        Ok(matmul(x, self.weight.t())?)
    }
}
