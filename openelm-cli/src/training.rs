//! The event loop of a training run, shared by `finetune` and `pretrain`.

use std::path::Path;

use openelm_core::{Result as CoreResult, train::Step};
use serde_json::Value;

use crate::{bar::TrainingBar, error::Error, interrupt::Interrupt, output};

/// An event of a training run.
pub(crate) trait TrainingEvent {
    /// The event as a JSON object.
    fn to_json(&self) -> Value;

    /// Shows the event in the bar, with a line above it if one is due.
    fn show(&self, bar: &mut TrainingBar);
}

/// Report options of a run.
pub(crate) struct Reports<'a> {
    /// The folder of the run.
    pub(crate) folder: &'a Path,
    /// No bar and no lines.
    pub(crate) quiet: bool,
    /// Print one JSON object per event on standard output.
    pub(crate) json: bool,
    /// Steps between report lines.
    pub(crate) every: u64,
    /// Steps of the whole run.
    pub(crate) total: u64,
    /// Steps already complete.
    pub(crate) done: u64,
}

/// Reports all events of `run`, and on failure the checkpoint to resume from.
pub(crate) fn follow<E: TrainingEvent>(
    run: impl Iterator<Item = CoreResult<E>>,
    reports: &Reports<'_>,
) -> Result<(), Error> {
    let Reports { done, total, .. } = *reports;
    if done > 0 && !reports.quiet {
        output::note(&if done < total {
            format!("continuing after iteration {done} of {total}")
        } else {
            format!("iteration {done} of {total} is complete: no step is left")
        });
    }
    let mut bar = TrainingBar::new(
        reports.quiet || reports.json,
        reports.every.max(1),
        reports.total,
        reports.done,
    );
    for event in run {
        let event = match event {
            Ok(event) => event,
            Err(error) => {
                bar.end();
                let state = reports.folder.join("training_state.safetensors");
                if state.is_file() && !reports.quiet {
                    output::note(&format!(
                        "the last checkpoint in {} is valid; continue from it with --resume",
                        reports.folder.display()
                    ));
                }
                return Err(error.into());
            }
        };
        if reports.json {
            output::write_json(&event.to_json())?;
        }
        event.show(&mut bar);
    }
    bar.end();
    Ok(())
}

/// Shows a step, with a line above the bar if one is due. `iteration` is the name of a step.
pub(crate) fn show_step(
    bar: &mut TrainingBar,
    iteration: &str,
    step: &Step,
    tokens_per_second: f64,
    trained_tokens: u64,
    peak_bytes: u64,
) {
    let Some(report) = bar.step(step, tokens_per_second, peak_bytes) else {
        return;
    };
    let gradient = step.gradient_norm;
    let gradient = gradient.map_or(String::new(), |norm| format!(" gradient {norm:.3},"));
    bar.note(&format!(
        "{iteration} {}: train loss {:.4}, learning rate {:.3e},{gradient} {:.1} tokens/s, {} \
         trained tokens, peak memory {}",
        step.iteration,
        report.loss,
        step.learning_rate,
        report.per_second,
        output::grouped(trained_tokens),
        report.memory,
    ));
}

/// Suffix of a validation loss.
pub(crate) fn best_suffix(best: bool) -> &'static str {
    if best { ", best so far" } else { "" }
}

/// The result of a command whose run may have been interrupted.
pub(crate) fn end(interrupt: &Interrupt) -> Result<(), Error> {
    if interrupt.was_pressed() {
        return Err(Error::Interrupted);
    }
    Ok(())
}
