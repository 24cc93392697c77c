//! Events of a pre-training run.

use std::path::PathBuf;

use serde_json::{Value, json};

use crate::training::{
    BestValidation, Step,
    event::{RunEvent, finished_json, step_json},
};

/// An event of a [`Pretrain`](crate::training::pretrain::pretrain::Pretrain).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum PretrainEvent {
    /// An update was made.
    Step {
        /// Loss and learning rate; targets of all processes.
        step: Step,
        /// Targets per second, of all processes.
        tokens_per_second: f64,
        /// Targets trained on since the start of the run.
        trained_tokens: u64,
        /// Peak memory of this process's MLX arrays so far, in bytes.
        peak_bytes: u64,
    },
    /// The loss on the held-out texts was measured.
    Validation {
        /// Updates before the validation.
        iteration: u64,
        /// Mean loss over the targets, in nats.
        loss: f64,
        /// The loss of all targets in bits, per byte of the texts in UTF-8.
        bits_per_byte: f64,
        /// True if this is the lowest loss so far.
        best: bool,
    },
    /// A checkpoint and the state were written.
    Saved {
        /// Updates before the save.
        iteration: u64,
        /// Folder of the checkpoint.
        folder: PathBuf,
    },
    /// The run has ended; the last event.
    Finished {
        /// Updates made.
        iteration: u64,
        /// The reason of the end.
        reason: PretrainEnd,
        /// The validation with the lowest loss.
        best: Option<BestValidation>,
    },
}

/// The reason for the end of a [`Pretrain`](crate::training::pretrain::pretrain::Pretrain).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PretrainEnd {
    /// All steps are done.
    Steps,
    /// The remaining data is not enough for a step.
    Data,
    /// The run was cancelled; its progress is saved.
    Cancelled,
}

impl PretrainEnd {
    /// The name in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Steps => "steps",
            Self::Data => "data",
            Self::Cancelled => "cancelled",
        }
    }
}

impl PretrainEvent {
    /// The event as one JSON object; the objects of steps and validations are the lines of
    /// `metrics.jsonl`.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => step_json(step, *tokens_per_second, *trained_tokens, *peak_bytes),
            Self::Validation {
                iteration,
                loss,
                bits_per_byte,
                best,
            } => json!({
                "event": "validation",
                "iteration": iteration,
                "val_loss": loss,
                "bits_per_byte": bits_per_byte,
                "best": best,
            }),
            Self::Saved { iteration, folder } => {
                json!({ "event": "saved", "iteration": iteration, "folder": folder })
            }
            Self::Finished {
                iteration,
                reason,
                best,
            } => finished_json(*iteration, reason.name(), *best),
        }
    }
}

impl RunEvent for PretrainEvent {
    const NEW_RUN: &'static str = "start a new run in another folder from the last of its \
        checkpoints";

    const WRITES: &'static [&'static str] = &[
        "checkpoints",
        "model",
        "ema",
        "average",
        "learning_rate.svg",
        "learning_rate.png",
    ];

    fn to_json(&self) -> Value {
        self.to_json()
    }

    fn is_metric(&self) -> bool {
        matches!(self, Self::Step { .. } | Self::Validation { .. })
    }
}
