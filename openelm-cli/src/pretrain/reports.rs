//! The live bar of a run, or lines where there is no terminal; events as JSON.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use openelm_core::pretrain::{PretrainEnd, PretrainEvent};
use serde_json::json;

use crate::output;

/// What the user sees of a run.
pub(super) struct Reports {
    bar: ProgressBar,
    quiet: bool,
    every: u64,
    steps: u64,
    /// Sum and number of losses since the last report, less the z-loss.
    losses: (f64, f64),
    /// Targets and seconds since the last report.
    speed: (f64, f64),
    validated: Option<f64>,
}

impl Reports {
    pub(super) fn new(quiet: bool, every: u64, steps: u64, done: u64) -> Self {
        let shown = !quiet && io::stderr().is_terminal();
        let target = match shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(steps), target);
        let style = "{pos}/{len} {wide_bar} {msg}, {eta} left";
        let bar = match ProgressStyle::with_template(style) {
            Ok(style) => bar.with_style(style),
            Err(_) => bar,
        };
        bar.set_position(done);
        bar.reset_eta();
        Self {
            bar,
            quiet,
            every,
            steps,
            losses: (0.0, 0.0),
            speed: (0.0, 0.0),
            validated: None,
        }
    }

    fn tell(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| output::tell(line));
        }
    }

    pub(super) fn take(&mut self, event: &PretrainEvent) {
        match event {
            PretrainEvent::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => {
                self.losses.0 += f64::from(step.loss - step.z_loss);
                self.losses.1 += 1.0;
                let targets = step.targets as f64;
                self.speed.0 += targets;
                self.speed.1 += targets / tokens_per_second;
                let loss = self.losses.0 / self.losses.1;
                let per_second = self.speed.0 / self.speed.1;
                let memory = output::bytes(*peak_bytes);
                self.bar.set_position(step.iteration);
                let validated = self
                    .validated
                    .map(|bits| format!(" (valid {bits:.3} bits/byte)"));
                self.bar.set_message(format!(
                    "loss {loss:.3}{}, {per_second:.0} tokens/s, {memory}",
                    validated.unwrap_or_default()
                ));
                if step.iteration.is_multiple_of(self.every) || step.iteration == self.steps {
                    self.tell(&format!(
                        "step {}: loss {loss:.4}, learning rate {:.3e}, gradient {:.3}, \
                         {per_second:.0} tokens/s, {} trained tokens, peak memory {memory}",
                        step.iteration,
                        step.learning_rate,
                        step.gradient_norm.unwrap_or_default(),
                        output::grouped(*trained_tokens),
                    ));
                    self.losses = (0.0, 0.0);
                    self.speed = (0.0, 0.0);
                }
            }
            PretrainEvent::Validation {
                iteration,
                loss,
                bits_per_byte,
                best,
            } => {
                self.validated = Some(*bits_per_byte);
                let best = if *best { ", the best so far" } else { "" };
                self.tell(&format!(
                    "step {iteration}: validation loss {loss:.4}, {bits_per_byte:.4} bits a \
                     byte{best}"
                ));
            }
            PretrainEvent::Finished {
                iteration, reason, ..
            } => match reason {
                PretrainEnd::Data => self.tell(&format!(
                    "ended after step {iteration}: there is no more data"
                )),
                PretrainEnd::Cancelled => self.tell(&format!(
                    "interrupted after step {iteration}, saved; --resume goes on"
                )),
                PretrainEnd::Steps => {}
            },
            _ => {}
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
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
