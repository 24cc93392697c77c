//! Report lines of a fine-tuning run.

use openelm_core::finetune::{FinetuneEnd, FinetuneEvent};
use serde_json::Value;

use crate::{
    bar::TrainingBar,
    training::{End, TrainingEvent, best_suffix, show_step},
};

impl TrainingEvent for FinetuneEvent {
    fn to_json(&self) -> Value {
        self.to_json()
    }

    fn show(&self, bar: &mut TrainingBar) {
        match self {
            Self::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => show_step(
                bar,
                "iter",
                step,
                *tokens_per_second,
                *trained_tokens,
                *peak_bytes,
            ),
            Self::Validation {
                iteration,
                loss,
                perplexity,
                best,
            } => {
                bar.validated(&format!("{loss:.3}"));
                bar.note(&format!(
                    "iter {iteration}: validation loss {loss:.4}, perplexity {perplexity:.3}{}",
                    best_suffix(*best)
                ));
            }
            Self::Finished {
                iteration, reason, ..
            } => match reason {
                FinetuneEnd::Patience => bar.note(&format!(
                    "ended after iteration {iteration}: the validation loss no longer improves"
                )),
                FinetuneEnd::Cancelled => bar.note(&format!(
                    "interrupted after iteration {iteration} and saved; continue with --resume"
                )),
                FinetuneEnd::Iterations => {}
            },
            _ => {}
        }
    }

    fn end(&self) -> Option<End> {
        let Self::Finished {
            iteration, reason, ..
        } = self
        else {
            return None;
        };
        Some(End {
            iteration: *iteration,
            is_cancelled: *reason == FinetuneEnd::Cancelled,
        })
    }
}
