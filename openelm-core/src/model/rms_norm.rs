//! RMSNorm.

use mlx_rs::{Array, Dtype, fast};

use crate::{
    config::{Config, tensor_names},
    error::Result,
    mlx::{
        Device,
        primitives::{CpuPrimitives, Norm},
    },
    weights::Weights,
};

/// RMSNorm over the last axis; MLX computes the squares in f32 for every type.
#[derive(Debug, Clone)]
pub(super) struct RmsNorm {
    pub(super) weight: Array,
    pub(super) eps: f32,
    device: Device,
}

impl RmsNorm {
    pub(super) fn new(config: &Config, name: &str, weights: &mut Weights) -> Result<Self> {
        let weight = weights.take(&tensor_names::weight(name), &[config.model_dim()])?;
        Ok(Self::of(
            weight,
            config.rms_norm_eps() as f32,
            Device::current()?,
        ))
    }

    /// The norm with a weight `[D]`.
    pub(super) fn of(weight: Array, eps: f32, device: Device) -> Self {
        Self {
            weight,
            eps,
            device,
        }
    }

    pub(super) fn forward(&self, x: &Array) -> Result<Array> {
        let are_f32 = [x, &self.weight]
            .iter()
            .all(|x| x.dtype() == Dtype::Float32);
        if are_f32 && let Some(primitives) = CpuPrimitives::of(self.device) {
            let norm = Norm {
                weight: &self.weight,
                eps: self.eps,
            };
            return primitives.rms_norm(x, norm);
        }
        Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}
