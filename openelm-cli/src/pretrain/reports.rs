//! What the user is told of a run; events as JSON.

use openelm_core::pretrain::{PretrainEnd, PretrainEvent};
use serde_json::json;

use crate::{bar::TrainingBar, output};

/// Shows an event in the bar and, where it is due, in a line above it.
pub(super) fn show(bar: &mut TrainingBar, event: &PretrainEvent) {
    match event {
        PretrainEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => {
            let loss = step.loss - step.z_loss;
            if let Some(report) = bar.step(step, loss, *tokens_per_second, *peak_bytes) {
                bar.tell(&format!(
                    "step {}: loss {:.4}, learning rate {:.3e}, gradient {:.3}, {:.0} tokens/s, \
                     {} trained tokens, peak memory {}",
                    step.iteration,
                    report.loss,
                    step.learning_rate,
                    step.gradient_norm.unwrap_or_default(),
                    report.per_second,
                    output::grouped(*trained_tokens),
                    report.memory,
                ));
            }
        }
        PretrainEvent::Validation {
            iteration,
            loss,
            bits_per_byte,
            best,
        } => {
            bar.validated(&format!("{bits_per_byte:.3} bits/byte"));
            let best = if *best { ", the best so far" } else { "" };
            bar.tell(&format!(
                "step {iteration}: validation loss {loss:.4}, {bits_per_byte:.4} bits a byte{best}"
            ));
        }
        PretrainEvent::Finished {
            iteration, reason, ..
        } => match reason {
            PretrainEnd::Data => bar.tell(&format!(
                "ended after step {iteration}: there is no more data"
            )),
            PretrainEnd::Cancelled => bar.tell(&format!(
                "interrupted after step {iteration}, saved; --resume goes on"
            )),
            PretrainEnd::Steps => {}
        },
        _ => {}
    }
}

/// An event as the JSON object of its line.
pub(super) fn to_json(event: &PretrainEvent) -> serde_json::Value {
    match event {
        PretrainEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => json!({
            "event": "step",
            "iteration": step.iteration,
            "train_loss": step.loss - step.z_loss,
            "z_loss": step.z_loss,
            "targets": step.targets,
            "learning_rate": step.learning_rate,
            "gradient_norm": step.gradient_norm,
            "tokens_per_second": tokens_per_second,
            "trained_tokens": trained_tokens,
            "peak_memory_bytes": peak_bytes,
        }),
        PretrainEvent::Validation {
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
        PretrainEvent::Saved { iteration, folder } => {
            json!({ "event": "saved", "iteration": iteration, "folder": folder })
        }
        PretrainEvent::Finished {
            iteration,
            reason,
            best,
        } => json!({
            "event": "finished",
            "iteration": iteration,
            "reason": match reason {
                PretrainEnd::Steps => "steps",
                PretrainEnd::Data => "data",
                PretrainEnd::Cancelled => "cancelled",
            },
            "best_iteration": best.map(|(iteration, _)| iteration),
            "best_val_loss": best.map(|(_, loss)| loss),
        }),
        _ => json!({ "event": "other" }),
    }
}
