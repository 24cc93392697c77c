//! The share of the device that generations have beside long work.
//!
//! After a unit of long work that took a time `t`, generations run for `3 t` if they have that much
//! to do, so a short text waits for one unit, and long work goes on beside long texts.

use std::time::{Duration, Instant};

/// Time for generations per time of long work.
const GENERATIONS: u32 = 3;

/// Longest wait for a reader that has not taken its event yet.
const READER: Duration = Duration::from_millis(10);

/// Time that generations may use before the next unit of long work.
#[derive(Debug, Default)]
pub(super) struct Share {
    left: Duration,
}

impl Share {
    /// Begins a new share after a unit of long work that took `time`.
    pub(super) fn begin(&mut self, time: Duration) {
        self.left = time.saturating_mul(GENERATIONS);
    }

    /// True if generations may go on.
    pub(super) fn remains(&self) -> bool {
        !self.left.is_zero()
    }

    /// Longest time to wait for a reader, within the share.
    pub(super) fn wait(&self) -> Duration {
        self.left.min(READER)
    }

    /// Takes the time since `start` from the share.
    pub(super) fn spend(&mut self, start: Instant) {
        self.left = self.left.saturating_sub(start.elapsed());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_three_times_the_unit() {
        let mut share = Share::default();
        assert!(!share.remains());
        share.begin(Duration::from_millis(100));
        assert!(share.remains());
        assert_eq!(share.wait(), READER);
        let before = |ms| {
            Instant::now()
                .checked_sub(Duration::from_millis(ms))
                .unwrap()
        };
        share.spend(before(200));
        assert!(share.remains());
        share.spend(before(101));
        assert!(!share.remains());
        assert_eq!(share.wait(), Duration::ZERO);
    }
}
