//! Report lines of a pre-training run.

use openelm_core::pretrain::{PretrainEnd, PretrainEvent};
use serde_json::Value;

use crate::{
    bar::TrainingBar,
    training::{End, TrainingEvent, best_suffix, show_step},
};

impl TrainingEvent for PretrainEvent {
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
                "step",
                step,
                *tokens_per_second,
                *trained_tokens,
                *peak_bytes,
            ),
            Self::Validation {
                iteration,
                loss,
                bits_per_byte,
                best,
            } => {
                bar.validated(&format!("{bits_per_byte:.3} bits/byte"));
                bar.note(&format!(
                    "step {iteration}: validation loss {loss:.4}, {bits_per_byte:.4} bits/byte{}",
                    best_suffix(*best)
                ));
            }
            Self::Finished {
                iteration, reason, ..
            } => match reason {
                PretrainEnd::Data => {
                    bar.note(&format!("ended after step {iteration}: end of the data"))
                }
                PretrainEnd::Cancelled => bar.note(&format!(
                    "interrupted after step {iteration} and saved; continue with --resume"
                )),
                PretrainEnd::Steps => {}
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
            is_cancelled: *reason == PretrainEnd::Cancelled,
        })
    }
}
