//! Measurement of a run's time and memory.

use std::{path::Path, time::Instant};

use super::{options::PretrainOptions, pretrain::Pretrain, source::SequenceSource};
use crate::{
    config::Config,
    error::{Error, Result},
    mlx::{
        cache_policy::{DeviceWork, Phase},
        memory,
    },
};

/// Time and memory of a run, from a few measured updates.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunEstimate {
    /// Number of trained parameters.
    pub parameters: u64,
    /// Updates of the run before this one, of a training checkpoint.
    pub first_iteration: u64,
    /// Seconds per update, if every process has a device like the measured one. The transfers
    /// between processes are not included.
    pub seconds_per_step: f64,
    /// Mean number of targets per update, of all processes.
    pub targets_per_step: f64,
    /// Peak memory of a process's MLX arrays, in bytes.
    pub peak_bytes: u64,
}

/// Seconds of an update that is not repeated.
const SLOW: f64 = 30.0;

/// Means of updates of one size.
struct Measured {
    seconds: f64,
    /// Targets per sequence.
    targets: f64,
}

impl Pretrain {
    /// Measures updates of one and of two forward passes, `updates` of each, and computes the time of
    /// the options' updates in `processes` processes from their difference. Nothing is written.
    ///
    /// # Errors
    /// As [`new`](Self::new) and the iterator; [`Error::Data`] if there is not enough data for
    /// two updates of one forward pass.
    pub fn measure(
        config: Config,
        source: Box<dyn SequenceSource>,
        mut options: PretrainOptions,
        processes: usize,
        updates: u64,
    ) -> Result<RunEstimate> {
        options.check(processes)?;
        options.check_sizes(&config, source.sequence_length(), processes)?;
        let sequences = options.batch_size;
        let share = sequences / processes;
        let rows = options.micro_batch_size.min(share);
        let passes = share.div_ceil(rows);
        options.batch_size = rows;
        let mut run = Self::prepare(config, source, None, Path::new(""), options, None)?;
        let first_iteration = run.iteration();
        let work = DeviceWork::begin()?;
        work.enter(Phase::Training)?;
        let Some(one) = run.measured(updates, &work)? else {
            return Err(Error::Data {
                path: "training data".into(),
                line: None,
                problem: format!("not enough for two steps of {rows} sequences"),
            });
        };
        let mut seconds_per_pass = one.seconds;
        if passes > 1 && one.seconds < SLOW {
            run.options.batch_size = 2 * rows;
            if let Some(two) = run.measured(updates, &work)? {
                seconds_per_pass = (two.seconds - one.seconds).max(0.0);
            }
        }
        Ok(RunEstimate {
            parameters: run.parameter_count(),
            first_iteration,
            seconds_per_step: one.seconds + seconds_per_pass * (passes - 1) as f64,
            targets_per_step: one.targets * sequences as f64,
            peak_bytes: memory::peak_bytes()? as u64,
        })
    }

    /// Means of `updates` updates; `None` if the data are not enough for two.
    fn measured(&mut self, updates: u64, work: &DeviceWork) -> Result<Option<Measured>> {
        let (mut made, mut targets, mut seconds) = (0.0, 0.0, 0.0);
        for nth in 0..updates.max(2) {
            let started = Instant::now();
            let Some(batches) = self.next_batches()? else {
                break;
            };
            let step = self.trainer.update(&batches, None)?;
            work.after_step()?;
            let elapsed = started.elapsed().as_secs_f64();
            // The first step also includes one-time preparation, a small part of a slow one.
            let is_slow = elapsed > SLOW;
            if nth > 0 || is_slow {
                made += 1.0;
                targets += step.targets as f64;
                seconds += elapsed;
            }
            if is_slow {
                break;
            }
        }
        Ok((made > 0.0).then(|| Measured {
            seconds: seconds / made,
            targets: targets / made / self.options.batch_size as f64,
        }))
    }
}
