//! The learning rate over time: constant, linear or cosine, after a warm-up. CoreNet's cosine
//! follows its `optims/scheduler/cosine.py`.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// A learning rate schedule.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Shape after the warm-up.
    pub kind: ScheduleKind,
    /// The rate at the end of the warm-up. Default 1e-5, as in mlx-lm.
    pub learning_rate: f64,
    /// Updates of the warm-up, in which the rate grows linearly from `warmup_init`; the update
    /// after the last of them is the first at the full rate. Default 0.
    pub warmup: u64,
    /// Initial rate of the warm-up. Default 0.
    pub warmup_init: f64,
}

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScheduleKind {
    /// The rate is constant.
    Constant,
    /// The rate changes linearly to `end` over `steps` updates, then stays constant.
    Linear {
        /// The final rate.
        end: f64,
        /// Number of updates.
        steps: u64,
    },
    /// The rate follows half a cosine to `end` over `steps` updates, then stays constant.
    Cosine {
        /// The final rate.
        end: f64,
        /// Number of updates.
        steps: u64,
    },
    /// CoreNet's cosine: the first update has the warm-up's initial rate, the update after the
    /// warm-up the full rate, and half a cosine decays to `end` over `max_iterations - warmup + 1`
    /// updates. Every rate is rounded to eight decimals.
    CoreNet {
        /// The lowest rate; the last update is close to it.
        end: f64,
        /// Number of updates, including the warm-up.
        max_iterations: u64,
    },
}

/// A learning rate schedule of a run of a known length.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScheduleOptions {
    /// Shape after the warm-up. Default constant.
    pub shape: ScheduleShape,
    /// The rate at the end of the warm-up. Default 1e-5, as in mlx-lm.
    pub learning_rate: f64,
    /// The final rate of a linear or cosine schedule. Default 0.
    pub end: f64,
    /// Updates of the warm-up. Default 0.
    pub warmup: u64,
    /// Initial rate of the warm-up. Default 0.
    pub warmup_init: f64,
}

/// Shape of the learning rate after the warm-up.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ScheduleShape {
    /// The rate is constant.
    #[default]
    Constant,
    /// The rate decays linearly until the end of the run.
    Linear,
    /// The rate follows half a cosine until the end of the run.
    Cosine,
    /// [`ScheduleKind::CoreNet`].
    CoreNet,
}

impl Default for ScheduleOptions {
    fn default() -> Self {
        Self {
            shape: ScheduleShape::default(),
            learning_rate: 1e-5,
            end: 0.0,
            warmup: 0,
            warmup_init: 0.0,
        }
    }
}

impl ScheduleOptions {
    /// The schedule of a run of `iters` batches, `grad_accumulation_steps` of them per update.
    pub fn schedule(&self, iters: u64, grad_accumulation_steps: usize) -> Schedule {
        let updates = iters / (grad_accumulation_steps as u64).max(1);
        let steps = updates.saturating_sub(self.warmup).max(1);
        let end = self.end;
        Schedule {
            kind: match self.shape {
                ScheduleShape::Constant => ScheduleKind::Constant,
                ScheduleShape::Linear => ScheduleKind::Linear { end, steps },
                ScheduleShape::Cosine => ScheduleKind::Cosine { end, steps },
                ScheduleShape::CoreNet => ScheduleKind::CoreNet {
                    end,
                    max_iterations: updates,
                },
            },
            learning_rate: self.learning_rate,
            warmup: self.warmup,
            warmup_init: self.warmup_init,
        }
    }
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Constant,
            learning_rate: ScheduleOptions::default().learning_rate,
            warmup: 0,
            warmup_init: 0.0,
        }
    }
}

impl Schedule {
    /// The rate of the update after `updates` earlier ones. The decay starts one update after the
    /// end of the warm-up, as in mlx-lm's `build_schedule`.
    pub fn at(&self, updates: u64) -> f32 {
        let peak = self.learning_rate;
        if let ScheduleKind::CoreNet {
            end,
            max_iterations,
        } = self.kind
        {
            return self.corenet(end, max_iterations, updates) as f32;
        }
        if self.warmup > 0 && updates <= self.warmup {
            let share = updates as f64 / self.warmup as f64;
            return (self.warmup_init + (peak - self.warmup_init) * share) as f32;
        }
        let since = match self.warmup {
            0 => updates,
            warmup => updates - warmup - 1,
        };
        let share = |steps: u64| since.min(steps) as f64 / steps.max(1) as f64;
        let rate = match self.kind {
            ScheduleKind::Constant => peak,
            ScheduleKind::Linear { end, steps } => peak + (end - peak) * share(steps),
            ScheduleKind::Cosine { end, steps } => {
                end + 0.5 * (1.0 + (PI * share(steps)).cos()) * (peak - end)
            }
            ScheduleKind::CoreNet { .. } => peak,
        };
        rate as f32
    }

    fn corenet(&self, end: f64, max_iterations: u64, updates: u64) -> f64 {
        let peak = self.learning_rate;
        let rate = if updates < self.warmup {
            let step = (peak - self.warmup_init) / self.warmup as f64;
            self.warmup_init + updates as f64 * step
        } else {
            let period = max_iterations.saturating_sub(self.warmup) + 1;
            let since = updates - self.warmup;
            // Beyond its end CoreNet's formula would rise again.
            let share = since.min(period) as f64 / period as f64;
            end + 0.5 * (peak - end) * (1.0 + (PI * share).cos())
        };
        (rate.max(0.0) * 1e8).round_ties_even() / 1e8
    }

    pub(super) fn check(&self) -> Result<()> {
        let end = match self.kind {
            ScheduleKind::Constant => 0.0,
            ScheduleKind::Linear { end, .. }
            | ScheduleKind::Cosine { end, .. }
            | ScheduleKind::CoreNet { end, .. } => end,
        };
        for (option, rate) in [
            ("learning_rate", self.learning_rate),
            ("warmup_init", self.warmup_init),
            ("lr_end", end),
        ] {
            // Updates use f32.
            if !(0.0..=f64::from(f32::MAX)).contains(&rate) {
                let problem = format!("expected a number from 0 to {:e}, found {rate}", f32::MAX);
                return Err(Error::option(option, problem));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cosine_follows_warmup() {
        let schedule = Schedule {
            kind: ScheduleKind::Cosine {
                end: 1e-4,
                steps: 10,
            },
            learning_rate: 1e-3,
            warmup: 4,
            warmup_init: 2e-4,
        };
        // 2e-4, then 2e-4 more at each update; 1e-3 twice; the middle of the cosine; its end.
        let expected = [
            (0, 2e-4),
            (1, 4e-4),
            (4, 1e-3),
            (5, 1e-3),
            (10, 5.5e-4),
            (15, 1e-4),
            (99, 1e-4),
        ];
        for (updates, rate) in expected {
            let found = schedule.at(updates);
            assert!(
                (found - rate).abs() < 1e-9,
                "{updates}: {found}, not {rate}"
            );
        }
    }

    #[test]
    fn a_run_decays_over_its_updates_after_the_warm_up() {
        let options = ScheduleOptions {
            shape: ScheduleShape::Cosine,
            learning_rate: 1e-3,
            end: 1e-4,
            warmup: 5,
            warmup_init: 0.0,
        };
        let kind = |steps| ScheduleKind::Cosine { end: 1e-4, steps };
        assert_eq!(options.schedule(100, 4).kind, kind(20));
        assert_eq!(options.schedule(100, 0).kind, kind(95));
        assert_eq!(options.schedule(3, 1).kind, kind(1));
        assert_eq!(
            ScheduleOptions::default().schedule(100, 1),
            Schedule::default()
        );
    }

    #[test]
    fn linear_schedules() {
        let mut schedule = Schedule {
            kind: ScheduleKind::Linear { end: 0.0, steps: 4 },
            learning_rate: 0.5,
            ..Schedule::default()
        };
        assert_eq!([0, 1, 4, 5].map(|i| schedule.at(i)), [0.5, 0.375, 0.0, 0.0]);
        schedule.kind = ScheduleKind::Constant;
        assert_eq!([0, 1, 400].map(|i| schedule.at(i)), [0.5; 3]);
    }

    /// Rates of CoreNet's formula for the 270M (`openelm_270M.yaml`), computed with Python's floats
    /// and `round(rate, 8)`.
    #[test]
    fn rates_of_270m_match_corenet() {
        let schedule = Schedule {
            kind: ScheduleKind::CoreNet {
                end: 5.3e-4,
                max_iterations: 350_000,
            },
            learning_rate: 5.3e-3,
            warmup: 5_000,
            warmup_init: 1e-6,
        };
        let expected = [
            (0, 1e-06),
            (1, 2.06e-06),
            (2, 3.12e-06),
            (100, 0.00010698),
            (2_500, 0.0026505),
            (4_999, 0.00529894),
            (5_000, 0.0053),
            (5_001, 0.0053),
            (50_000, 0.00510255),
            (100_000, 0.00446187),
            (177_500, 0.00291501),
            (250_000, 0.00145237),
            (345_000, 0.00053247),
            (349_999, 0.00053),
            (350_000, 0.00053),
        ];
        for (updates, rate) in expected {
            assert_eq!(schedule.at(updates), rate, "{updates}");
        }
    }
}
