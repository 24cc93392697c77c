//! Events of a run: parts shared by fine-tuning and pre-training, and their JSON.
//!
//! An event has one JSON object: `openelm --json` prints it, and `metrics.jsonl` stores the objects
//! of steps and validations.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::trainer::Step;

/// The validation with the lowest loss.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BestValidation {
    /// Iterations before the validation.
    pub iteration: u64,
    /// Mean loss, in nats.
    pub loss: f64,
}

/// An event of a run.
pub(super) trait RunEvent {
    /// The advice to a user if this version cannot resume the run.
    const NEW_RUN: &'static str;

    /// Files and folders that the run writes, in addition to the files of every run.
    const WRITES: &'static [&'static str];

    /// The event as a JSON object.
    fn to_json(&self) -> Value;

    /// True for an event with a line in `metrics.jsonl`.
    fn is_metric(&self) -> bool;
}

/// A step's JSON; `train_loss` is without the z-loss.
pub(super) fn step_json(
    step: &Step,
    tokens_per_second: f64,
    trained_tokens: u64,
    peak_memory_bytes: u64,
) -> Value {
    json!({
        "event": "step",
        "iteration": step.iteration,
        "train_loss": step.loss - step.z_loss,
        "z_loss": step.z_loss,
        "targets": step.targets,
        "learning_rate": step.learning_rate,
        "gradient_norm": step.gradient_norm,
        "tokens_per_second": tokens_per_second,
        "trained_tokens": trained_tokens,
        "peak_memory_bytes": peak_memory_bytes,
    })
}

/// A run's last JSON.
pub(super) fn finished_json(iteration: u64, reason: &str, best: Option<BestValidation>) -> Value {
    json!({
        "event": "finished",
        "iteration": iteration,
        "reason": reason,
        "best_iteration": best.map(|best| best.iteration),
        "best_val_loss": best.map(|best| best.loss),
    })
}
