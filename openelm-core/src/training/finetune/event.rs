//! What a run tells, to its caller and to `metrics.jsonl`.

use serde_json::{Value, json};

use crate::training::Step;

/// What a [`Finetune`](crate::training::finetune::finetune::Finetune) tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FinetuneEvent {
    /// A batch was trained on.
    Step {
        /// What it did.
        step: Step,
        /// TargetModules a second, of this step.
        tokens_per_second: f64,
        /// TargetModules trained on so far, this run's and those of the run it resumed.
        trained_tokens: u64,
        /// The most memory of MLX' arrays so far, in bytes.
        peak_bytes: u64,
    },
    /// The model was tried on the validation data.
    Validation {
        /// Batches trained on before it.
        iteration: u64,
        /// Mean loss over the targets, in nats (preferences: over the pairs).
        loss: f64,
        /// `e^loss`, the perplexity.
        perplexity: f64,
        /// Whether it is the lowest loss so far.
        best: bool,
    },
    /// The adapter and the state were written.
    Saved {
        /// Batches trained on before it.
        iteration: u64,
    },
    /// There is no more to come.
    Finished {
        /// Batches trained on.
        iteration: u64,
        /// Why it ended.
        reason: FinetuneEnd,
        /// The best validation, its iteration and loss.
        best: Option<(u64, f64)>,
    },
}

/// Why a [`Finetune`](crate::training::finetune::finetune::Finetune) ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinetuneEnd {
    /// All iterations are done.
    Iterations,
    /// Validation got no better for as long as `patience` says.
    Patience,
    /// It was cancelled; what was done is saved.
    Cancelled,
}

impl FinetuneEvent {
    /// Its line in `metrics.jsonl`; `Null` where it has none.
    pub(super) fn line(&self) -> Value {
        match self {
            Self::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => json!({
                "iteration": step.iteration,
                "train_loss": step.loss,
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
                perplexity,
                best,
            } => json!({
                "iteration": iteration,
                "val_loss": loss,
                "perplexity": perplexity,
                "best": best,
            }),
            _ => Value::Null,
        }
    }
}
