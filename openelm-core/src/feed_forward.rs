//! The feed-forward block: SwiGLU, or a plain SiLU network where `ffn_with_glu` is off
//! (`general_gpt.py`, `FeedForwardNetwork`).

use mlx_rs::{
    Array,
    ops::{sigmoid, split_equal},
};

use crate::{
    config::{Config, Layer},
    error::Result,
    linear::Linear,
    weights::Weights,
};

/// The feed-forward block of one layer.
#[derive(Debug)]
pub(crate) struct FeedForward {
    proj_1: Linear,
    proj_2: Linear,
    with_glu: bool,
}

impl FeedForward {
    /// Takes the tensors under `prefix` (`transformer.layers.{i}.ffn`) from `weights`.
    pub(crate) fn new(
        config: &Config,
        layer: &Layer,
        prefix: &str,
        weights: &mut Weights,
    ) -> Result<Self> {
        let (width, inner) = (config.model_dim(), layer.ffn_dim);
        let with_glu = config.ffn_with_glu();
        let rows = if with_glu { 2 * inner } else { inner };
        Ok(Self {
            proj_1: Linear::new(weights.take(&format!("{prefix}.proj_1.weight"), &[rows, width])?),
            proj_2: Linear::new(weights.take(&format!("{prefix}.proj_2.weight"), &[width, inner])?),
            with_glu,
        })
    }

    /// `[B, L, D]` to `[B, L, D]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let h = self.proj_1.forward(x)?;
        if !self.with_glu {
            return self.proj_2.forward(&silu(&h)?);
        }
        // The first half of the rows is the gate.
        let halves = split_equal(&h, 2, -1)?;
        let [gate, up] = halves.as_slice() else {
            return Ok(h);
        };
        self.proj_2.forward(&silu(gate)?.multiply(up)?)
    }
}

fn silu(x: &Array) -> Result<Array> {
    Ok(x.multiply(sigmoid(x)?)?)
}
