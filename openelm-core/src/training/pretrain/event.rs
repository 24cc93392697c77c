//! What a run tells, to its caller and to `metrics.jsonl`.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::training::Step;

/// What a [`Pretrain`](crate::training::pretrain::run::Pretrain) tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PretrainEvent {
    /// An update was made.
    Step {
        /// What it did; its targets are those of all processes.
        step: Step,
        /// TargetModules a second, of all processes.
        tokens_per_second: f64,
        /// TargetModules trained on so far, this run's and those of the run it resumed.
        trained_tokens: u64,
        /// The most memory of this process' MLX arrays so far, in bytes.
        peak_bytes: u64,
    },
    /// The model was tried on the held-out texts.
    Validation {
        /// Updates before it.
        iteration: u64,
        /// Mean loss over the targets, in nats.
        loss: f64,
        /// What all targets cost, in bits, by the length of the texts in UTF-8.
        bits_per_byte: f64,
        /// Whether it is the lowest loss so far.
        best: bool,
    },
    /// A checkpoint and the state were written.
    Saved {
        /// Updates before it.
        iteration: u64,
        /// The checkpoint's folder.
        folder: PathBuf,
    },
    /// There is no more to come.
    Finished {
        /// Updates made.
        iteration: u64,
        /// Why it ended.
        reason: PretrainEnd,
        /// The best validation, its iteration and loss.
        best: Option<(u64, f64)>,
    },
}

/// Why a [`Pretrain`](crate::training::pretrain::run::Pretrain) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PretrainEnd {
    /// All steps are made.
    Steps,
    /// There is not enough data left for a step.
    Data,
    /// It was cancelled; what was done is saved.
    Cancelled,
}

impl PretrainEvent {
    /// Its line in `metrics.jsonl`; `Null` where it has none.
    pub(crate) fn line(&self) -> Value {
        match self {
            Self::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => json!({
                "iteration": step.iteration,
                "train_loss": step.loss - step.z_loss,
                "z_loss": step.z_loss,
                "targets": step.targets,
                "learning_rate": step.learning_rate,
                "gradient_norm": step.gradient_norm,
                "tokens_per_second": tokens_per_second,
                "trained_tokens": trained_tokens,
                "peak_memory": peak_bytes,
            }),
            Self::Validation {
                iteration,
                loss,
                bits_per_byte,
                best,
            } => json!({
                "iteration": iteration,
                "val_loss": loss,
                "bits_per_byte": bits_per_byte,
                "best": best,
            }),
            _ => Value::Null,
        }
    }
}
