//! Progress bars on standard error: none where there is no terminal, or nothing is to be told.

use std::io::{self, IsTerminal};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use openelm_core::train::Step;

use crate::output;

/// A bar that looks as `template` says, of a length to be set.
pub(crate) fn bar(quiet: bool, template: &str) -> ProgressBar {
    let target = match !quiet && io::stderr().is_terminal() {
        true => ProgressDrawTarget::stderr(),
        false => ProgressDrawTarget::hidden(),
    };
    ProgressBar::with_draw_target(Some(0), target).with_style(style(template))
}

/// How bars look, by indicatif's template.
pub(crate) fn style(template: &str) -> ProgressStyle {
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
}

/// The bar of a training run, with lines above it now and then.
pub(crate) struct TrainingBar {
    bar: ProgressBar,
    quiet: bool,
    every: u64,
    total: u64,
    /// Sum and number of losses since the last report.
    losses: (f64, f64),
    /// TargetModules and seconds since the last report.
    speed: (f64, f64),
    validated: String,
}

/// What steps since the last report came to.
pub(crate) struct Report {
    /// Their mean loss, in nats.
    pub(crate) loss: f64,
    /// TargetModules a second.
    pub(crate) per_second: f64,
    /// The most memory so far, with its unit.
    pub(crate) memory: String,
}

impl TrainingBar {
    /// For a run of `total` steps, `done` of which are made; there is a report `every` so many.
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
            losses: (0.0, 0.0),
            speed: (0.0, 0.0),
            validated: String::new(),
        }
    }

    /// Moves on by a step; what it and those before it came to, if a report is due.
    pub(crate) fn step(
        &mut self,
        step: &Step,
        loss: f32,
        tokens_per_second: f64,
        peak_bytes: u64,
    ) -> Option<Report> {
        self.losses.0 += f64::from(loss);
        self.losses.1 += 1.0;
        let targets = step.targets as f64;
        self.speed.0 += targets;
        self.speed.1 += targets / tokens_per_second;
        let report = Report {
            loss: self.losses.0 / self.losses.1,
            per_second: self.speed.0 / self.speed.1,
            memory: output::bytes(peak_bytes),
        };
        self.bar.set_position(step.iteration);
        self.bar.set_message(format!(
            "loss {:.3}{}, {:.0} tokens/s, {}",
            report.loss, self.validated, report.per_second, report.memory
        ));
        let due = step.iteration.is_multiple_of(self.every) || step.iteration == self.total;
        due.then(|| {
            (self.losses, self.speed) = ((0.0, 0.0), (0.0, 0.0));
            report
        })
    }

    /// What the last validation found, in the bar from now on.
    pub(crate) fn validated(&mut self, found: &str) {
        self.validated = format!(" (valid {found})");
    }

    /// A line above the bar.
    pub(crate) fn tell(&self, line: &str) {
        if !self.quiet {
            self.bar.suspend(|| output::tell(line));
        }
    }

    /// Takes the bar away.
    pub(crate) fn end(&self) {
        self.bar.finish_and_clear();
    }
}
