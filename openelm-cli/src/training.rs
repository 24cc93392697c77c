//! The event loop of a training run, shared by `finetune` and `pretrain`.

use std::path::Path;

use openelm_core::{CancelHandle, Result as CoreResult, train::Step};
use serde_json::Value;

use crate::{
    bar::TrainingBar,
    error::Error,
    interrupt::{Interrupt, Signal},
    output,
};

/// An event of a training run.
pub(crate) trait TrainingEvent {
    /// The event as a JSON object.
    fn to_json(&self) -> Value;

    /// Shows the event in the bar, with a line above it if one is due.
    fn show(&self, bar: &mut TrainingBar);

    /// The end of the run, if the event is its last.
    fn end(&self) -> Option<End>;
}

/// The end of a run.
#[derive(Clone, Copy)]
pub(crate) struct End {
    /// Iterations in total.
    pub(crate) iteration: u64,
    /// True if the run was cancelled.
    pub(crate) is_cancelled: bool,
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

/// A run that has ended without an error.
pub(crate) struct Ended {
    end: Option<End>,
    /// The first failure of standard output.
    lost: Option<Error>,
}

/// Says before the first event where a resumed run continues.
pub(crate) fn show_start(is_resumed: bool, reports: &Reports<'_>) {
    let Reports { done, total, .. } = *reports;
    if reports.quiet || !is_resumed {
        return;
    }
    output::note(&match done {
        0 => format!(
            "no iteration is saved in {}: starting from the first",
            reports.folder.display()
        ),
        _ if done < total => format!("continuing after iteration {done} of {total}"),
        _ => format!("{done} iterations are complete, of {total}: no step is left"),
    });
}

/// Reports all events of `run`, and on failure the checkpoint to resume from. If standard output
/// can no longer be written, `cancel` ends the run before its next step, and it is saved. So does a
/// signal after the first event; there is nothing to save before.
pub(crate) fn follow<E: TrainingEvent>(
    run: impl Iterator<Item = CoreResult<E>>,
    reports: &Reports<'_>,
    cancel: &CancelHandle,
    interrupt: &Interrupt,
) -> Result<Ended, Error> {
    let mut bar = TrainingBar::new(
        reports.quiet || reports.json,
        reports.every.max(1),
        reports.total,
        reports.done,
    );
    let mut ended = Ended {
        end: None,
        lost: None,
    };
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
        interrupt.cancels(cancel.clone());
        if reports.json && ended.lost.is_none() {
            ended.report(output::write_json(&event.to_json()), interrupt);
            if ended.lost.is_some() {
                cancel.cancel();
            }
        }
        event.show(&mut bar);
        ended.end = event.end().or(ended.end);
    }
    bar.end();
    Ok(ended)
}

impl Ended {
    /// True if the run was not cancelled.
    pub(crate) fn is_complete(&self) -> bool {
        self.end.is_some_and(|end| !end.is_cancelled)
    }

    /// Records the first failure of standard output. After a signal, the run ends anyway.
    pub(crate) fn report(&mut self, written: Result<(), Error>, interrupt: &Interrupt) {
        if let Err(error) = written
            && interrupt.signal().is_none()
        {
            self.lost.get_or_insert(error);
        }
    }

    /// The result of the command, whose run is in `folder`.
    ///
    /// # Errors
    /// [`Error::Interrupted`] after a signal, or if another process of the group ended the run;
    /// [`Error::Unreported`].
    pub(crate) fn result(self, folder: &Path, interrupt: &Interrupt) -> Result<(), Error> {
        let is_complete = self.is_complete();
        if let Some(error) = self.lost {
            return Err(error.unreported(|| kept(folder, self.end)));
        }
        interrupt.check()?;
        if is_complete {
            return Ok(());
        }
        Err(Signal::Interrupt.into())
    }
}

/// The result of a run that could not report it.
fn kept(folder: &Path, end: Option<End>) -> String {
    let folder = folder.display();
    match end {
        Some(End {
            is_cancelled: false,
            ..
        }) => format!("the run in {folder} is complete"),
        Some(End { iteration, .. }) if iteration > 0 => format!(
            "the run in {folder} is saved after iteration {iteration}; continue with --resume"
        ),
        _ => format!("the run in {folder} ended before its first iteration"),
    }
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
