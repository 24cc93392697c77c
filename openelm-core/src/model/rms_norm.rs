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
        match by_primitive(x, &self.weight, self.eps, self.device)? {
            Some(y) => Ok(y),
            None => Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?),
        }
    }
}

/// RMSNorm of `x` with a weight of its last one or two axes by a primitive of the CPU; `None` on
/// other devices and for other types than f32.
pub(super) fn by_primitive(
    x: &Array,
    weight: &Array,
    eps: f32,
    device: Device,
) -> Result<Option<Array>> {
    let are_f32 = [x, weight].iter().all(|x| x.dtype() == Dtype::Float32);
    let primitives = CpuPrimitives::of(device).filter(|_| are_f32);
    primitives
        .map(|primitives| primitives.rms_norm(x, Norm { weight, eps }))
        .transpose()
}
