//! RMSNorm.

use mlx_rs::{Array, fast};

use crate::{
    config::{Config, tensor_names},
    error::Result,
    weights::Weights,
};

/// RMSNorm over the last axis; MLX computes the squares in f32 for every type.
#[derive(Debug, Clone)]
pub(super) struct RmsNorm {
    pub(super) weight: Array,
    pub(super) eps: f32,
}

impl RmsNorm {
    pub(super) fn new(config: &Config, name: &str, weights: &mut Weights) -> Result<Self> {
        let weight = weights.take(&tensor_names::weight(name), &[config.model_dim()])?;
        Ok(Self {
            weight,
            eps: config.rms_norm_eps() as f32,
        })
    }

    pub(super) fn forward(&self, x: &Array) -> Result<Array> {
        Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}
