//! The figures of a training run: `metrics.jsonl`, or a log of CoreNet.
//!
//! CoreNet prints a line at its first update and at every `log_freq`-th after it
//! (`corenet/metrics/stats.py`, `iter_summary`):
//!
//! ```text
//! .. Epoch:   0 [     501/  350000], loss: {'total_loss': 7.25, 'ce_loss': 7.2388, 'z_loss': 0.0112},
//!    LR: [0.000531], Avg. batch load time: 0.123, Elapsed time: 900.25
//! ```
//!
//! Without z-loss, the loss is a number. Each loss is the mean since the beginning of the epoch, or
//! since the program was started; pre-training has one epoch.

use std::path::Path;

use openelm_core::text::for_each_line;
use serde_json::Value;

use super::Quantity;
use crate::error::Error;

/// The figures of a run, by iteration.
#[derive(Debug, Default)]
pub(super) struct RunLog {
    steps: Vec<Step>,
    is_corenet: bool,
}

/// The figures of a step, or means.
#[derive(Debug, Clone, PartialEq)]
struct Step {
    iteration: u64,
    /// Cross-entropy.
    loss: Option<f64>,
    z_loss: Option<f64>,
    total_loss: Option<f64>,
    learning_rate: Option<f64>,
}

impl RunLog {
    /// Reads `path`: a folder with `metrics.jsonl`, such a file, or a log of CoreNet.
    ///
    /// # Errors
    /// If the file cannot be read or has no line of a training step.
    pub(super) fn read(path: &Path) -> Result<Self, Error> {
        let file = if path.is_dir() {
            path.join("metrics.jsonl")
        } else {
            path.to_owned()
        };
        let mut log = Self::default();
        let mut is_validation = false;
        let wrong = |problem: String| Error::Settings {
            place: file.display().to_string(),
            problem,
        };
        let read = for_each_line(&file, |line| {
            if let Some(step) = of_metrics(line) {
                log.steps.push(step);
                return;
            }
            // Validations print the same lines after a heading of their own.
            match line {
                _ if line.contains("Training epoch") => is_validation = false,
                _ if line.contains("Validation epoch") => is_validation = true,
                _ => {}
            }
            if let Some(step) = of_corenet(line).filter(|_| !is_validation) {
                log.steps.push(step);
                log.is_corenet = true;
            }
        });
        read.map_err(|error| wrong(error.to_string()))?;
        if log.steps.is_empty() {
            let problem = "expected lines of metrics.jsonl or of a CoreNet log, found none";
            return Err(wrong(problem.into()));
        }
        Ok(log)
    }

    pub(super) fn is_corenet(&self) -> bool {
        self.is_corenet
    }

    /// The values of `quantity`; if `averaged`, the means since the first step, which CoreNet's logs
    /// have.
    pub(super) fn points(&self, quantity: Quantity, averaged: bool) -> Vec<(u64, f64)> {
        let values = self.steps.iter().filter_map(|step| {
            let value = match quantity {
                Quantity::Loss => step.loss,
                Quantity::TotalLoss => step.total_loss,
                Quantity::ZLoss => step.z_loss,
                Quantity::LearningRate => step.learning_rate,
            };
            Some((step.iteration, value.filter(|value| value.is_finite())?))
        });
        if !averaged || self.is_corenet {
            return values.collect();
        }
        let (mut sum, mut count) = (0.0, 0.0);
        let mean = |(iteration, value)| {
            sum += value;
            count += 1.0;
            (iteration, sum / count)
        };
        values.map(mean).collect()
    }
}

/// The step of a line of `metrics.jsonl`.
fn of_metrics(line: &str) -> Option<Step> {
    let line: Value = serde_json::from_str(line).ok()?;
    let number = |key| line.get(key).and_then(Value::as_f64);
    let loss = number("train_loss")?;
    let z_loss = number("z_loss");
    Some(Step {
        iteration: line.get("iteration")?.as_u64()?,
        loss: Some(loss),
        z_loss,
        total_loss: Some(loss + z_loss.unwrap_or(0.0)),
        learning_rate: number("learning_rate"),
    })
}

/// The step of a line of CoreNet.
fn of_corenet(line: &str) -> Option<Step> {
    let (_, line) = line.split_once("Epoch:")?;
    let (_, place) = line.split_once('[')?;
    let (iteration, rest) = place.split_once('/')?;
    let (_, rest) = rest.split_once(']')?;
    let iteration = iteration.trim().parse().ok()?;
    // A number, or the first of a list of parameter groups.
    let number = |text: &str| -> Option<f64> {
        let text = text.trim_start().trim_start_matches('[');
        let end = text.find([',', '}', ']']).unwrap_or(text.len());
        text.get(..end)?.trim().parse().ok()
    };
    let after = |text: &str, name: &str| number(text.split_once(name)?.1);
    let (_, losses) = rest.split_once("loss:")?;
    let losses = losses.trim_start();
    let (loss, z_loss, total_loss) = match losses.strip_prefix('{') {
        Some(names) => (
            after(names, "'ce_loss':"),
            after(names, "'z_loss':"),
            after(names, "'total_loss':"),
        ),
        None => (number(losses), None, number(losses)),
    };
    Some(Step {
        iteration,
        loss,
        z_loss,
        total_loss,
        learning_rate: after(rest, "LR:"),
    })
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    /// Printed by Python with CoreNet's format strings.
    const LOG: &str = "2024-03-01 12:00:00 - \x1b[32m\x1b[1mINFO   \x1b[0m - Training epoch 0
2024-03-01 12:00:01 - \x1b[34m\x1b[1mLOGS   \x1b[0m - Epoch:   0 [       1/  350000], loss: {'total_loss': 10.5213, 'ce_loss': 10.5101, 'z_loss': 0.0112}, LR: [1e-06, 1e-06], Avg. batch load time: 0.123, Elapsed time:  3.20
2024-03-01 12:00:02 - \x1b[34m\x1b[1mLOGS   \x1b[0m - Epoch:   0 [     501/  350000], loss: {'total_loss': 7.25, 'ce_loss': 7.2388, 'z_loss': 0.0112}, LR: [0.000531, 0.000531], Avg. batch load time: 0.123, Elapsed time: 900.25
2024-03-01 12:00:03 - \x1b[34m\x1b[1mLOGS   \x1b[0m - Epoch:   0 [    1001/  350000], loss: 6.5, LR: 0.001060, Avg. batch load time: 0.123, Elapsed time: 1800.50
2024-03-01 12:00:04 - \x1b[32m\x1b[1mINFO   \x1b[0m - Validation epoch 0
2024-03-01 12:00:05 - \x1b[34m\x1b[1mLOGS   \x1b[0m - Epoch:   0 [       0/       9], loss: 6.5, LR: 0.001060, Avg. batch load time: 0.123, Elapsed time:  1.50
";

    #[test]
    fn reads_corenets_log() {
        let folder = TempDir::new();
        let log = RunLog::read(&folder.write("training_logs.txt", LOG)).unwrap();
        assert!(log.is_corenet());
        let points = |quantity| log.points(quantity, true);
        assert_eq!(
            points(Quantity::Loss),
            [(1, 10.5101), (501, 7.2388), (1001, 6.5)]
        );
        assert_eq!(
            points(Quantity::TotalLoss),
            [(1, 10.5213), (501, 7.25), (1001, 6.5)]
        );
        assert_eq!(points(Quantity::ZLoss), [(1, 0.0112), (501, 0.0112)]);
        assert_eq!(
            points(Quantity::LearningRate),
            [(1, 1e-6), (501, 0.000531), (1001, 0.00106)]
        );
    }

    #[test]
    fn averages_metrics_since_the_first_step() {
        let folder = TempDir::new();
        let line = |iteration: u64, loss: f64| {
            format!("{{\"iteration\": {iteration}, \"train_loss\": {loss}, \"z_loss\": 0.5}}\n")
        };
        let text = [
            line(1, 4.0),
            "{\"val_loss\": 9, \"iteration\": 1}\n".into(),
            line(2, 2.0),
        ];
        folder.write("metrics.jsonl", text.concat());
        let log = RunLog::read(&folder).unwrap();
        assert!(!log.is_corenet());
        assert_eq!(log.points(Quantity::Loss, false), [(1, 4.0), (2, 2.0)]);
        assert_eq!(log.points(Quantity::TotalLoss, true), [(1, 4.5), (2, 3.5)]);
        assert_eq!(log.points(Quantity::LearningRate, false), []);
    }

    #[test]
    fn a_file_without_steps_is_refused() {
        let folder = TempDir::new();
        for text in ["", "Epoch: 1\nEpoch: 0 [/], loss: \n{}\n[1, 2]\n"] {
            let path = folder.write("a.txt", text);
            let error = RunLog::read(&path).unwrap_err().to_string();
            assert!(error.ends_with("found none"), "{error}");
        }
        RunLog::read(&folder).unwrap_err();
    }
}
