//! Options of the trainer.

use super::{optimizer::Optimizer, schedule::Schedule};
use crate::error::{Error, Result};

/// Options of a [`Trainer`](super::trainer::Trainer).
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerOptions {
    /// The optimizer of the trained parameters. Default Adam without bias correction,
    /// as in mlx-lm.
    pub optimizer: Optimizer,
    /// The learning rate over time. Default constant 1e-5, as in mlx-lm.
    pub schedule: Schedule,
    /// Batches whose gradients are averaged into one update. Default 1.
    pub grad_accumulation_steps: usize,
    /// Clip gradients to this global norm (PyTorch's `clip_grad_norm_`). Default none.
    pub clip_norm: Option<f32>,
    /// Recompute activations in the backward pass (gradient checkpointing): less memory, slower.
    /// Default off.
    pub grad_checkpoint: bool,
    /// Factor of the mean of `logsumexp²` over the targets in the loss, which keeps logits small;
    /// CoreNet uses 1e-4, for adapters too. No effect on preferences. Default 0.
    pub z_loss: f32,
    /// Fraction of each target's weight that is spread over the vocabulary, below 1. Requires a head
    /// that is trained whole. Default 0.
    pub label_smoothing: f32,
    /// Decay of an exponential moving average of the trained parameters: the weight of the old
    /// average at every update. Default none.
    pub ema_decay: Option<f32>,
    /// Seed of dropout. Default 0.
    pub seed: u64,
    /// Mixed precision as PyTorch's autocast, which CoreNet trains with: products are computed in
    /// bfloat16, and the residual stream, norms, rotary embeddings and the loss in f32. Requires
    /// that all weights of a model in f32 are trained. Default off.
    pub autocast: bool,
    /// Report the losses of [`Trainer::update`](super::trainer::Trainer::update) as CoreNet does,
    /// whose rows have this number of positions: the mean of the means of the batches, weighted by
    /// their rows, and in the z-loss `ln(V)^2` for each position without a target, as CoreNet
    /// multiplies its logits by 0. The gradient is the same. Default `None`: means over the targets.
    pub corenet_losses: Option<usize>,
    /// Compile steps with MLX where it can: fewer kernels, the same results up to rounding. Default
    /// `None`: on a GPU.
    pub compile: Option<bool>,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            grad_accumulation_steps: 1,
            clip_norm: None,
            grad_checkpoint: false,
            z_loss: 0.0,
            label_smoothing: 0.0,
            ema_decay: None,
            seed: 0,
            autocast: false,
            corenet_losses: None,
            compile: None,
        }
    }
}

impl TrainerOptions {
    pub(super) fn check(&self) -> Result<()> {
        self.optimizer.check()?;
        self.schedule.check()?;
        if self.grad_accumulation_steps == 0 {
            return Err(Error::Option {
                option: "grad_accumulation_steps",
                problem: "expected at least 1, found 0".into(),
            });
        }
        for (option, value) in [
            ("label_smoothing", Some(self.label_smoothing)),
            ("ema_decay", self.ema_decay),
        ] {
            if let Some(found) = value.filter(|value| !(0.0..1.0).contains(value)) {
                return Err(Error::Option {
                    option,
                    problem: format!("expected 0 or more and below 1, found {found}"),
                });
            }
        }
        if !(self.z_loss >= 0.0 && self.z_loss.is_finite()) {
            return Err(Error::Option {
                option: "z_loss",
                problem: format!("expected 0 or more, found {}", self.z_loss),
            });
        }
        match self.clip_norm {
            Some(norm) if norm.is_nan() || norm <= 0.0 => Err(Error::Option {
                option: "clip_norm",
                problem: format!("expected a number above 0, found {norm}"),
            }),
            _ => Ok(()),
        }
    }
}
