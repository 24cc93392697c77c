//! Rotary position embedding as CoreNet computes it (`rotary_embeddings.py`): the whole head is
//! rotated in pairs `(j, j + head_dim/2)` by `position * base^(-2j/head_dim)`, in f32.
//!
//! On a GPU MLX's fused kernel does it, given the periods `base^(2j/head_dim)`: with `base` alone
//! its angles drift from CoreNet's by up to 6e-4. MLX has no such kernel for the CPU and would
//! work out the same table again for each layer's queries and keys, so there one table serves
//! the whole step.

use mlx_rs::{
    Array, Dtype, fast,
    ops::{concatenate, split_equal},
};

use crate::{dtype::Device, error::Result};

/// Rotation angles of one model.
#[derive(Debug)]
pub(crate) struct Rope {
    head_dim: usize,
    /// `base^(-2j/head_dim)`, rounded to f32 where CoreNet rounds.
    inverse_periods: Vec<f32>,
    periods: Array,
    fused: bool,
}

/// The rotation of one forward pass: positions `offset .. offset + L`.
#[derive(Debug)]
pub(crate) enum Rotation<'a> {
    /// For MLX's kernel.
    Fused {
        head_dim: i32,
        periods: &'a Array,
        offset: i32,
    },
    /// Cosines and sines, f32 `[L, 1, head_dim/2]`.
    Table { cos: Array, sin: Array },
}

impl Rope {
    pub(crate) fn new(head_dim: usize, base: f64, device: Device) -> Self {
        let periods: Vec<f32> = (0..head_dim / 2)
            .map(|j| base.powf((2 * j) as f64 / head_dim as f64) as f32)
            .collect();
        Self {
            head_dim,
            inverse_periods: periods.iter().map(|period| 1.0 / period).collect(),
            periods: Array::from_slice(&periods, &[periods.len() as i32]),
            fused: device == Device::Gpu,
        }
    }

    /// The rotation of `length` positions from `offset` on.
    pub(crate) fn at(&self, offset: usize, length: usize) -> Rotation<'_> {
        if self.fused {
            return Rotation::Fused {
                head_dim: self.head_dim as i32,
                periods: &self.periods,
                offset: offset as i32,
            };
        }
        let angles = (offset..offset + length).flat_map(|position| {
            self.inverse_periods
                .iter()
                .map(move |f| position as f32 * f)
        });
        let (sin, cos): (Vec<f32>, Vec<f32>) = angles.map(f32::sin_cos).unzip();
        let shape = [length as i32, 1, (self.head_dim / 2) as i32];
        Rotation::Table {
            cos: Array::from_slice(&cos, &shape),
            sin: Array::from_slice(&sin, &shape),
        }
    }
}

impl Rotation<'_> {
    /// Rotates `x` `[B, L, H, head_dim]` and returns it as `[B, H, L, head_dim]`, in its type.
    pub(crate) fn apply(&self, x: &Array) -> Result<Array> {
        match self {
            Self::Fused {
                head_dim,
                periods,
                offset,
            } => {
                let x = x.transpose_axes(&[0, 2, 1, 3])?;
                Ok(fast::rope(
                    &x, *head_dim, false, None, 1.0, *offset, *periods,
                )?)
            }
            Self::Table { cos, sin } => {
                let dtype = x.dtype();
                let x = if dtype == Dtype::Float32 {
                    x.clone()
                } else {
                    x.as_dtype(Dtype::Float32)?
                };
                let halves = split_equal(&x, 2, -1)?;
                let [left, right] = halves.as_slice() else {
                    return Ok(x);
                };
                let rotated = concatenate(
                    &[
                        left.multiply(cos)?.subtract(right.multiply(sin)?)?,
                        right.multiply(cos)?.add(left.multiply(sin)?)?,
                    ],
                    -1,
                )?;
                let rotated = rotated.transpose_axes(&[0, 2, 1, 3])?;
                Ok(if dtype == Dtype::Float32 {
                    rotated
                } else {
                    rotated.as_dtype(dtype)?
                })
            }
        }
    }
}
