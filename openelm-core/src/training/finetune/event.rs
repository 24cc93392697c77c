//! Events of a fine-tuning run.

use serde_json::{Value, json};

use crate::training::{
    BestValidation, Step,
    event::{RunEvent, finished_json, step_json},
};

/// An event of a [`Finetune`](crate::training::finetune::finetune::Finetune).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FinetuneEvent {
    /// A batch was processed.
    Step {
        /// Loss and learning rate.
        step: Step,
        /// Targets per second in this step.
        tokens_per_second: f64,
        /// Targets trained on since the start of the run.
        trained_tokens: u64,
        /// Peak memory of MLX's arrays so far, in bytes.
        peak_bytes: u64,
    },
    /// The loss on the validation data was measured.
    Validation {
        /// Batches before the validation.
        iteration: u64,
        /// Mean loss over the targets, in nats (preferences: over the pairs).
        loss: f64,
        /// `e^loss`, the perplexity.
        perplexity: f64,
        /// True if this is the lowest loss so far.
        best: bool,
    },
    /// The adapter and the state were written.
    Saved {
        /// Batches before the save.
        iteration: u64,
    },
    /// The run has ended; the last event.
    Finished {
        /// Batches trained on.
        iteration: u64,
        /// The reason of the end.
        reason: FinetuneEnd,
        /// The validation with the lowest loss.
        best: Option<BestValidation>,
    },
}

/// The reason for the end of a [`Finetune`](crate::training::finetune::finetune::Finetune).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinetuneEnd {
    /// All iterations are done.
    Iterations,
    /// The validation loss did not improve for `patience` validations.
    Patience,
    /// The run was cancelled; its progress is saved.
    Cancelled,
}

impl FinetuneEnd {
    /// The name in JSON.
    fn name(self) -> &'static str {
        match self {
            Self::Iterations => "iterations",
            Self::Patience => "patience",
            Self::Cancelled => "cancelled",
        }
    }
}

impl FinetuneEvent {
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
                perplexity,
                best,
            } => json!({
                "event": "validation",
                "iteration": iteration,
                "val_loss": loss,
                "perplexity": perplexity,
                "best": best,
            }),
            Self::Saved { iteration } => json!({ "event": "saved", "iteration": iteration }),
            Self::Finished {
                iteration,
                reason,
                best,
            } => finished_json(*iteration, reason.name(), *best),
        }
    }
}

impl RunEvent for FinetuneEvent {
    const NEW_RUN: &'static str = "start a new run in another folder from the adapter of this one";

    const WRITES: &'static [&'static str] = &[
        "adapters.safetensors",
        "adapter_config.json",
        "best",
        "reference.safetensors",
    ];

    fn to_json(&self) -> Value {
        self.to_json()
    }

    fn is_metric(&self) -> bool {
        matches!(self, Self::Step { .. } | Self::Validation { .. })
    }
}
