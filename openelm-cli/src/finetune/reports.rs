//! What the user is told of a run; events as JSON.

use openelm_core::finetune::{FinetuneEnd, FinetuneEvent};
use serde_json::json;

use crate::{bar::TrainingBar, output};

/// Shows an event in the bar and, where it is due, in a line above it.
pub(super) fn show(bar: &mut TrainingBar, event: &FinetuneEvent) {
    match event {
        FinetuneEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => {
            let report = bar.step(step, step.loss, *tokens_per_second, *peak_bytes);
            if let Some(report) = report {
                bar.tell(&format!(
                    "iter {}: train loss {:.4}, learning rate {:.3e}, {:.1} tokens/s, {} trained \
                     tokens, peak memory {}",
                    step.iteration,
                    report.loss,
                    step.learning_rate,
                    report.per_second,
                    output::grouped(*trained_tokens),
                    report.memory,
                ));
            }
        }
        FinetuneEvent::Validation {
            iteration,
            loss,
            perplexity,
            best,
        } => {
            bar.validated(&format!("{loss:.3}"));
            let best = if *best { ", the best so far" } else { "" };
            bar.tell(&format!(
                "iter {iteration}: validation loss {loss:.4}, perplexity {perplexity:.3}{best}"
            ));
        }
        FinetuneEvent::Finished {
            iteration, reason, ..
        } => match reason {
            FinetuneEnd::Patience => bar.tell(&format!(
                "ended after iteration {iteration}: validation gets no better"
            )),
            FinetuneEnd::Cancelled => bar.tell(&format!(
                "interrupted after iteration {iteration}, saved; --resume goes on"
            )),
            FinetuneEnd::Iterations => {}
        },
        _ => {}
    }
}

/// An event as the JSON object of its line.
pub(super) fn to_json(event: &FinetuneEvent) -> serde_json::Value {
    match event {
        FinetuneEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => json!({
            "event": "step",
            "iteration": step.iteration,
            "train_loss": step.loss,
            "targets": step.targets,
            "learning_rate": step.learning_rate,
            "tokens_per_second": tokens_per_second,
            "trained_tokens": trained_tokens,
            "peak_memory_bytes": peak_bytes,
        }),
        FinetuneEvent::Validation {
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
        FinetuneEvent::Saved { iteration } => json!({ "event": "saved", "iteration": iteration }),
        FinetuneEvent::Finished {
            iteration,
            reason,
            best,
        } => json!({
            "event": "finished",
            "iteration": iteration,
            "reason": match reason {
                FinetuneEnd::Iterations => "iterations",
                FinetuneEnd::Patience => "patience",
                FinetuneEnd::Cancelled => "cancelled",
            },
            "best_iteration": best.map(|(iteration, _)| iteration),
            "best_val_loss": best.map(|(_, loss)| loss),
        }),
        _ => json!({ "event": "other" }),
    }
}
