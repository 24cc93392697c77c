//! The live bar of a run, or lines where there is no terminal; events as JSON.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use openelm_core::finetune::{FinetuneEnd, FinetuneEvent};
use serde_json::json;

use crate::output;

/// What the user sees of a run.
pub(super) struct Reports {
    bar: ProgressBar,
    quiet: bool,
    every: u64,
    iters: u64,
    losses: Vec<f32>,
    /// Targets and seconds since the last report.
    speed: (f64, f64),
    validated: Option<f64>,
}

impl Reports {
    pub(super) fn new(quiet: bool, every: u64, iters: u64, done: u64) -> Self {
        let shown = !quiet && io::stderr().is_terminal();
        let target = match shown {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        let bar = ProgressBar::with_draw_target(Some(iters), target);
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
            iters,
            losses: Vec::new(),
            speed: (0.0, 0.0),
            validated: None,
        }
    }

    fn tell(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| output::tell(line));
        }
    }

    pub(super) fn take(&mut self, event: &FinetuneEvent) {
        match event {
            FinetuneEvent::Step {
                step,
                tokens_per_second,
                trained_tokens,
                peak_bytes,
            } => {
                self.losses.push(step.loss);
                let targets = step.targets as f64;
                self.speed.0 += targets;
                self.speed.1 += targets / tokens_per_second;
                let loss = self.losses.iter().sum::<f32>() / self.losses.len() as f32;
                let per_second = self.speed.0 / self.speed.1;
                let memory = output::bytes(*peak_bytes);
                self.bar.set_position(step.iteration);
                let validated = self.validated.map(|loss| format!(" (valid {loss:.3})"));
                self.bar.set_message(format!(
                    "loss {loss:.3}{}, {per_second:.0} tokens/s, {memory}",
                    validated.unwrap_or_default()
                ));
                if step.iteration.is_multiple_of(self.every) || step.iteration == self.iters {
                    self.tell(&format!(
                        "iter {}: train loss {loss:.4}, learning rate {:.3e}, {per_second:.1} \
                         tokens/s, {} trained tokens, peak memory {memory}",
                        step.iteration,
                        step.learning_rate,
                        output::grouped(*trained_tokens),
                    ));
                    self.losses.clear();
                    self.speed = (0.0, 0.0);
                }
            }
            FinetuneEvent::Validation {
                iteration,
                loss,
                perplexity,
                best,
            } => {
                self.validated = Some(*loss);
                let best = if *best { ", the best so far" } else { "" };
                self.tell(&format!(
                    "iter {iteration}: validation loss {loss:.4}, perplexity {perplexity:.3}{best}"
                ));
            }
            FinetuneEvent::Finished {
                iteration, reason, ..
            } => match reason {
                FinetuneEnd::Patience => self.tell(&format!(
                    "ended after iteration {iteration}: validation gets no better"
                )),
                FinetuneEnd::Cancelled => self.tell(&format!(
                    "interrupted after iteration {iteration}, saved; --resume goes on"
                )),
                FinetuneEnd::Iterations => {}
            },
            _ => {}
        }
    }

    pub(super) fn end(&self) {
        self.bar.finish_and_clear();
    }
}

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
