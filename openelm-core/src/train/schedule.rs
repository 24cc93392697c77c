//! The learning rate over time: constant, linear or cosine, after a warm-up.

use std::f64::consts::PI;

use crate::error::{Error, Result};

/// A learning rate for every update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Schedule {
    /// Its course after the warm-up.
    pub kind: ScheduleKind,
    /// The rate at the warm-up's end. Default 1e-5, as in mlx-lm.
    pub learning_rate: f64,
    /// Updates of the warm-up, in which the rate grows evenly from `warmup_init`; the update after
    /// the last of them is the first at the full rate. Default 0.
    pub warmup: u64,
    /// Where the warm-up begins. Default 0.
    pub warmup_init: f64,
}

/// The course of the learning rate.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum ScheduleKind {
    /// It stays.
    Constant,
    /// It falls (or grows) evenly to `end` over `steps` updates, and stays.
    Linear {
        /// The last rate.
        end: f64,
        /// Updates until then.
        steps: u64,
    },
    /// It falls along half a cosine to `end` over `steps` updates, and stays.
    Cosine {
        /// The last rate.
        end: f64,
        /// Updates until then.
        steps: u64,
    },
}

impl Default for Schedule {
    fn default() -> Self {
        Self {
            kind: ScheduleKind::Constant,
            learning_rate: 1e-5,
            warmup: 0,
            warmup_init: 0.0,
        }
    }
}

impl Schedule {
    /// The rate of the update that `updates` others went before. The course begins one update after
    /// the warm-up's end, as with mlx-lm's `build_schedule`.
    pub fn at(&self, updates: u64) -> f32 {
        let peak = self.learning_rate;
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
        };
        rate as f32
    }

    pub(super) fn check(&self) -> Result<()> {
        let end = match self.kind {
            ScheduleKind::Constant => 0.0,
            ScheduleKind::Linear { end, .. } | ScheduleKind::Cosine { end, .. } => end,
        };
        for rate in [self.learning_rate, self.warmup_init, end] {
            if !(rate >= 0.0 && rate.is_finite()) {
                return Err(Error::Option {
                    option: "learning_rate",
                    problem: format!("expected 0 or more, found {rate}"),
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cosine_after_a_warm_up() {
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
    fn straight_lines() {
        let mut schedule = Schedule {
            kind: ScheduleKind::Linear { end: 0.0, steps: 4 },
            learning_rate: 0.5,
            ..Schedule::default()
        };
        assert_eq!([0, 1, 4, 5].map(|i| schedule.at(i)), [0.5, 0.375, 0.0, 0.0]);
        schedule.kind = ScheduleKind::Constant;
        assert_eq!([0, 1, 400].map(|i| schedule.at(i)), [0.5; 3]);
    }
}
