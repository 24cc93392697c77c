//! The feed-forward block: SwiGLU, or a plain SiLU network without `ffn_with_glu`
//! (`general_gpt.py`, `FeedForwardNetwork`).

use mlx_rs::{
    Array, Dtype,
    ops::{power, sigmoid},
    stop_gradient,
};

use super::{
    linear::{Linear, LinearVisitor},
    rms_norm::RmsNorm,
    split::split,
};
use crate::{
    config::{
        Config, Layer,
        tensor_names::{self, PROJ_1, PROJ_2},
    },
    error::Result,
    mlx::{
        Device,
        primitives::{CpuPrimitives, Then},
        swiglu,
    },
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
    /// Takes the tensors of the layer `index` from `weights`.
    pub(crate) fn new(
        config: &Config,
        layer: &Layer,
        index: usize,
        weights: &mut Weights,
    ) -> Result<Self> {
        let (width, inner) = (config.model_dim(), layer.ffn_dim);
        let with_glu = config.ffn_with_glu();
        let rows = if with_glu { 2 * inner } else { inner };
        Ok(Self {
            proj_1: Linear::new(weights.take_matrix(
                &tensor_names::layer(index, PROJ_1),
                rows,
                width,
            )?),
            proj_2: Linear::new(weights.take_matrix(
                &tensor_names::layer(index, PROJ_2),
                width,
                inner,
            )?),
            with_glu,
            device: Device::current()?,
        })
    }

    /// Calls `visit` with the name of each projection within the layer.
    pub(crate) fn visit_linears(&mut self, visit: &mut LinearVisitor<'_>) -> Result<()> {
        visit(PROJ_1, &mut self.proj_1)?;
        visit(PROJ_2, &mut self.proj_2)
    }

    /// `residual` and the network's output for `x`, both `[B, L, D]`. With `trained` the result is
    /// the same, and on a CPU fewer arrays are kept for its gradient.
    pub(crate) fn forward(&self, x: &Array, residual: &Array, trained: bool) -> Result<Array> {
        let fused = self.device == Device::Gpu && !trained;
        self.proj_2
            .forward_onto(residual, &self.inner(x, trained)?, fused)
    }

    /// The input `[B, L, ffn_dim]` of `proj_2` for the block's input `x`.
    pub(super) fn inner(&self, x: &Array, trained: bool) -> Result<Array> {
        let h = self.proj_1.forward(x)?;
        if !self.with_glu {
            return silu(&h, self.device);
        }
        if h.dtype() == Dtype::Float32
            && let Some(primitives) = CpuPrimitives::of(self.device)
        {
            return primitives.swiglu(&h);
        }
        // The first half of the rows is the gate.
        let [gate, up] = split(&h, -1)?;
        match self.device {
            Device::Gpu => swiglu(&gate, &up),
            Device::Cpu if trained => swiglu_with_gradient(&gate, &up),
            Device::Cpu => Ok(silu(&gate, Device::Cpu)?.multiply(up)?),
        }
    }

    /// Like [`forward`](Self::forward) of the norm of `x`, with `x` as the residual, by primitives.
    pub(super) fn forward_on_cpu(
        &self,
        primitives: CpuPrimitives,
        x: &Array,
        norm: &RmsNorm,
    ) -> Result<Array> {
        let norm = Some(norm);
        let inner = if self.with_glu {
            self.proj_1
                .forward_on_cpu(primitives, x, norm, Then::Swiglu)?
        } else {
            let h = self
                .proj_1
                .forward_on_cpu(primitives, x, norm, Then::Nothing)?;
            silu(&h, self.device)?
        };
        self.proj_2
            .forward_on_cpu(primitives, &inner, None, Then::Add(x))
    }
}

/// `silu(gate) · up` on a CPU, with its gradient computed in the forward pass: this keeps two
/// arrays of its size, where MLX's gradient keeps five.
fn swiglu_with_gradient(gate: &Array, up: &Array) -> Result<Array> {
    let (g, u) = (stop_gradient(gate)?, stop_gradient(up)?);
    let one = Array::from_f32(1.0).as_dtype(g.dtype())?;
    let sigmoid = if uses_power(&g, Device::Cpu) {
        one.divide(decay(&g)?.add(&one)?)?
    } else {
        sigmoid(&g)?
    };
    let silu = g.multiply(&sigmoid)?;
    // d silu(g) / dg = σ + g·σ·(1 - σ)
    let slope = silu.multiply(one.subtract(&sigmoid)?)?.add(sigmoid)?;
    let (by_gate, by_up) = (slope.multiply(&u)?, silu);
    let value = by_up.multiply(&u)?;
    // Zeros, with these gradients.
    let change = gate.subtract(&g)?.multiply(stop_gradient(by_gate)?)?;
    let change = change.add(up.subtract(&u)?.multiply(stop_gradient(by_up)?)?)?;
    Ok(stop_gradient(value)?.add(change)?)
}

/// `x · sigmoid(x)`.
fn silu(x: &Array, device: Device) -> Result<Array> {
    if uses_power(x, device) {
        Ok(x.divide(decay(x)?.add(Array::from_f32(1.0))?)?)
    } else {
        Ok(x.multiply(sigmoid(x)?)?)
    }
}

/// True if `power` replaces `exp`: MLX's CPU `exp`, and so `sigmoid`, takes three times as long.
fn uses_power(x: &Array, device: Device) -> bool {
    device == Device::Cpu && x.dtype() == Dtype::Float32
}

/// `e^-x`, f32.
fn decay(x: &Array) -> Result<Array> {
    Ok(power(Array::from_f32((-1.0_f32).exp()), x)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silu_forms_agree() {
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

    #[test]
    fn training_form_matches_value_and_gradient() {
        let gate: Vec<f32> = (-60..=60).map(|i| i as f32 * 0.5).collect();
        let up: Vec<f32> = (0..121).map(|i| (i as f32 - 50.0) * 0.03).collect();
        let cotangent: Vec<f32> = (0..121).map(|i| 1.0 - i as f32 * 0.02).collect();
        for (device, dtype, most) in [
            (Device::Cpu, Dtype::Float32, 2e-6),
            (Device::Gpu, Dtype::Float32, 2e-6),
            (Device::Gpu, Dtype::Bfloat16, 3e-2),
        ] {
            let array = |v: &[f32]| Array::from_slice(v, &[121]).as_dtype(dtype).unwrap();
            let primals = [array(&gate), array(&up)];
            let run = |trained: bool| {
                let f = |x: &[Array]| {
                    let [gate, up] = x else { unreachable!() };
                    let y = match device {
                        _ if !trained => silu(gate, device).and_then(|y| Ok(y.multiply(up)?)),
                        Device::Cpu => swiglu_with_gradient(gate, up),
                        Device::Gpu => swiglu(gate, up),
                    };
                    Ok::<_, mlx_rs::error::Exception>(vec![y.unwrap()])
                };
                let (mut values, gradients) =
                    mlx_rs::transforms::fallible_vjp(f, &primals, &[array(&cotangent)]).unwrap();
                values.extend(gradients);
                assert!(values.iter().all(|v| v.dtype() == dtype));
                let values = values.iter().map(|v| {
                    let v = v.as_dtype(Dtype::Float32).unwrap();
                    v.to_vec_exact::<f32>().unwrap()
                });
                values.collect::<Vec<_>>()
            };
            for (found, expected) in run(true).iter().zip(run(false)) {
                for (i, (found, expected)) in found.iter().zip(&expected).enumerate() {
                    assert!(
                        (found - expected).abs() <= most * (1.0 + expected.abs()),
                        "{device:?} {dtype:?} at {i}: {found}, not {expected}"
                    );
                }
            }
        }
    }
}
