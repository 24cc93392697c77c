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

/// Time and memory per step, measured over a few steps.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RunEstimate {
    /// Number of trained parameters.
    pub parameters: u64,
    /// Seconds per step, without the first.
    pub seconds_per_step: f64,
    /// Mean number of targets per step.
    pub targets_per_step: f64,
    /// Peak memory of this process's MLX arrays, in bytes.
    pub peak_bytes: u64,
}

impl Pretrain {
    /// Measures `steps` updates; nothing is written.
    ///
    /// # Errors
    /// As [`new`](Self::new) and the iterator; [`Error::Data`] if there is not enough data for
    /// one step.
    pub fn measure(
        config: Config,
        source: Box<dyn SequenceSource>,
        options: PretrainOptions,
        steps: u64,
    ) -> Result<RunEstimate> {
        let mut run = Self::prepare(config, source, None, Path::new(""), options, None)?;
        let work = DeviceWork::begin()?;
        work.enter(Phase::Training)?;
        let (mut made, mut targets, mut seconds) = (0.0, 0.0, 0.0);
        for nth in 0..steps.max(2) {
            let started = Instant::now();
            let Some(batches) = run.next_batches()? else {
                break;
            };
            let step = run.trainer.update(&batches, None)?;
            work.after_step()?;
            // The first step also includes one-time preparation.
            if nth > 0 {
                made += 1.0;
                targets += step.targets as f64;
                seconds += started.elapsed().as_secs_f64();
            }
        }
        if made == 0.0 {
            return Err(Error::Data {
                path: "training data".into(),
                line: None,
                problem: format!(
                    "not enough for two steps of {} sequences",
                    run.options.batch_size
                ),
            });
        }
        Ok(RunEstimate {
            parameters: run.parameter_count(),
            seconds_per_step: seconds / made,
            targets_per_step: targets / made,
            peak_bytes: memory::peak_bytes()? as u64,
        })
    }
}
