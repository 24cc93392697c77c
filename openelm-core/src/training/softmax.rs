//! The softmax of logits, in the form that is fast on a device.
//!
//! Shapes: `n` rows, `V` vocabulary.

use mlx_rs::{
    Array,
    ops::{logsumexp_axis, power},
};

use crate::{
    error::Result,
    mlx::{
        Device,
        primitives::{CpuPrimitives, SoftmaxParts},
    },
};

/// The softmax of logits f32 `[n, V]` and its parts.
pub(super) enum Softmax {
    /// On a CPU with the primitives of this project: one pass on all threads.
    Parts(SoftmaxParts),
    /// On another CPU: exponentials relative to the largest logit, and their sums. MLX's `exp` takes
    /// three times as long as its `power`, so no exponential is computed twice.
    Exponentials {
        exponentials: Array,
        /// `[n, 1]`.
        largest: Array,
        /// `[n, 1]`.
        sums: Array,
    },
    /// On a GPU: the logits and MLX's `logsumexp` `[n, 1]`. The exponentials are part of the
    /// kernel that uses them.
    Logits { logits: Array, logsumexp: Array },
}

impl Softmax {
    pub(super) fn new(logits: Array, device: Device) -> Result<Self> {
        if let Some(primitives) = CpuPrimitives::of(device) {
            return Ok(Self::Parts(primitives.softmax(&logits)?));
        }
        Ok(match device {
            Device::Cpu => {
                let largest = logits.max_axis(-1, true)?;
                let e = Array::from_f32(std::f32::consts::E);
                let exponentials = power(e, logits.subtract(&largest)?)?;
                let sums = exponentials.sum_axis(-1, true)?;
                Self::Exponentials {
                    exponentials,
                    largest,
                    sums,
                }
            }
            Device::Gpu => Self::Logits {
                logsumexp: logsumexp_axis(&logits, -1, true)?,
                logits,
            },
        })
    }

    /// `log Σ exp(logits)`, `[n, 1]`.
    pub(super) fn logsumexp(&self) -> Result<Array> {
        Ok(match self {
            Self::Parts(SoftmaxParts { largest, sums, .. })
            | Self::Exponentials { largest, sums, .. } => sums.log()?.add(largest)?,
            Self::Logits { logsumexp, .. } => logsumexp.clone(),
        })
    }

    /// The log-probabilities of the logits `at` `[n, 1]`.
    pub(super) fn log_probabilities(&self, at: &Array) -> Result<Array> {
        Ok(match self {
            Self::Parts(SoftmaxParts { largest, sums, .. })
            | Self::Exponentials { largest, sums, .. } => {
                at.subtract(largest)?.subtract(sums.log()?)?
            }
            Self::Logits { logsumexp, .. } => at.subtract(logsumexp)?,
        })
    }

    /// The probabilities `[n, V]`.
    pub(super) fn probabilities(&self) -> Result<Array> {
        Ok(match self {
            Self::Parts(parts) => parts.probabilities.clone(),
            Self::Exponentials {
                exponentials, sums, ..
            } => exponentials.divide(sums)?,
            Self::Logits { logits, logsumexp } => logits.subtract(logsumexp)?.exp()?,
        })
    }

    /// The probabilities, multiplied by `factor` `[n, 1]`.
    pub(super) fn scaled(&self, factor: &Array) -> Result<Array> {
        Ok(match self {
            Self::Parts(parts) => parts.probabilities.multiply(factor)?,
            Self::Exponentials {
                exponentials, sums, ..
            } => exponentials.multiply(factor.divide(sums)?)?,
            Self::Logits { .. } => self.probabilities()?.multiply(factor)?,
        })
    }
}
