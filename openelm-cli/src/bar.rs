//! Progress bars on standard error. Hidden with `--quiet` or without a terminal.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use openelm_core::train::Step;

use crate::output;

/// A bar with the given indicatif template. Its length is set later.
pub(crate) fn bar(quiet: bool, template: &str) -> ProgressBar {
    let target = if !quiet && io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    ProgressBar::with_draw_target(Some(0), target).with_style(style(template))
}

/// A style from an indicatif template.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The progress bar of a training run, with a report line above it every few steps.
pub(crate) struct TrainingBar {
    bar: ProgressBar,
    quiet: bool,
    every: u64,
    total: u64,
    since_report: Sums,
    validated: String,
}

/// Sums over the steps since the last report.
#[derive(Default)]
struct Sums {
    loss: f64,
    steps: f64,
    targets: f64,
    seconds: f64,
}

/// Means over the steps since the last report.
pub(crate) struct Report {
    /// Mean loss without z-loss, in nats.
    pub(crate) loss: f64,
    /// Targets per second.
    pub(crate) per_second: f64,
    /// Peak memory so far, with its unit.
    pub(crate) memory: String,
}

impl TrainingBar {
    /// A bar for `total` steps, of which `done` are complete, with a report every `every` steps.
    pub(crate) fn new(quiet: bool, every: u64, total: u64, done: u64) -> Self {
        let bar = bar(quiet, "{pos}/{len} {wide_bar} {msg}, {eta} left");
        bar.set_length(total);
        bar.set_position(done);
        bar.reset_eta();
        Self {
            bar,
            quiet,
            every,
            total,
            since_report: Sums::default(),
            validated: String::new(),
        }
    }

    /// Advances by one step and returns the report if one is due.
    pub(crate) fn step(
        &mut self,
        step: &Step,
        tokens_per_second: f64,
        peak_bytes: u64,
    ) -> Option<Report> {
        let targets = step.targets as f64;
        let sums = &mut self.since_report;
        sums.loss += f64::from(step.loss - step.z_loss);
        sums.steps += 1.0;
        sums.targets += targets;
        sums.seconds += targets / tokens_per_second;
        let report = Report {
            loss: sums.loss / sums.steps,
            per_second: sums.targets / sums.seconds,
            memory: output::bytes(peak_bytes),
        };
        self.bar.set_position(step.iteration);
        self.bar.set_message(format!(
            "loss {:.3}{}, {:.0} tokens/s, {}",
            report.loss, self.validated, report.per_second, report.memory
        ));
        let due = step.iteration.is_multiple_of(self.every) || step.iteration == self.total;
        due.then(|| {
            self.since_report = Sums::default();
            report
        })
    }

    /// Shows the result of the last validation in the bar.
    pub(crate) fn validated(&mut self, found: &str) {
        self.validated = format!(" (valid {found})");
    }

    /// Prints a line above the bar.
    pub(crate) fn note(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| output::note(line));
        }
    }

    /// Removes the bar.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
