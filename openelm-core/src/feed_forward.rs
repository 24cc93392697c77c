//! The feed-forward block: SwiGLU, or a plain SiLU network where `ffn_with_glu` is off
//! (`general_gpt.py`, `FeedForwardNetwork`).

use mlx_rs::{
    Array, Dtype,
    ops::{power, sigmoid, split_equal},
};

use crate::{
    config::{Config, Layer},
    dtype::Device,
    error::Result,
    linear::{Linear, LinearVisitor},
    weights::Weights,
};

/// The feed-forward block of one layer.
#[derive(Debug, Clone)]
pub(crate) struct FeedForward {
    proj_1: Linear,
    proj_2: Linear,
    with_glu: bool,
    device: Device,
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
            proj_1: weights.take_matrix(&format!("{prefix}.proj_1"), rows, width)?,
            proj_2: weights.take_matrix(&format!("{prefix}.proj_2"), width, inner)?,
            with_glu,
            device: Device::current()?,
        })
    }

    /// Calls `visit` with each projection's name below the layer.
    pub(crate) fn visit_linears(&mut self, visit: &mut LinearVisitor<'_>) -> Result<()> {
        visit("ffn.proj_1", &mut self.proj_1)?;
        visit("ffn.proj_2", &mut self.proj_2)
    }

    /// `[B, L, D]` to `[B, L, D]`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let h = self.proj_1.forward(x)?;
        if !self.with_glu {
            return self.proj_2.forward(&silu(&h, self.device)?);
        }
        // The first half of the rows is the gate.
        let halves = split_equal(&h, 2, -1)?;
        let [gate, up] = halves.as_slice() else {
            return Ok(h);
        };
        self.proj_2.forward(&silu(gate, self.device)?.multiply(up)?)
    }
}

/// `x · sigmoid(x)`.
fn silu(x: &Array, device: Device) -> Result<Array> {
    if device == Device::Cpu && x.dtype() == Dtype::Float32 {
        // MLX's CPU `exp`, and `sigmoid` with it, takes three times as long as its `power`.
        let decay = power(Array::from_f32((-1.0_f32).exp()), x)?;
        return Ok(x.divide(decay.add(Array::from_f32(1.0))?)?);
    }
    Ok(x.multiply(sigmoid(x)?)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silu_is_the_same_either_way() {
        let values: Vec<f32> = (-2000..=2000).map(|i| i as f32 * 0.1).collect();
        let x = Array::from_slice(&values, &[values.len() as i32]);
        let found = silu(&x, Device::Cpu)
            .unwrap()
            .to_vec_exact::<f32>()
            .unwrap();
        let other = silu(&x, Device::Gpu)
            .unwrap()
            .to_vec_exact::<f32>()
            .unwrap();
        for ((x, found), other) in values.into_iter().zip(found).zip(other) {
            let exact = f64::from(x) / (1.0 + (-f64::from(x)).exp());
            for y in [found, other] {
                let error = (f64::from(y) - exact).abs();
                assert!(
                    error <= 1e-6 + 2e-6 * exact.abs(),
                    "silu({x}) = {y}, not {exact}"
                );
            }
        }
    }
}
