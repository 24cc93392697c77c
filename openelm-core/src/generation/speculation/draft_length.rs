//! The number of drafts of a round, which follows their acceptance.

use crate::mlx::Device;

/// Drafts of the first round, and of the first after a pause.
const FIRST: usize = 2;

/// Saved steps that are remembered, so that a text that ceases to repeat soon pauses.
const MOST_SAVED: f32 = 2.0;

/// Lost steps after which drafts pause.
const MOST_LOST: f32 = -2.0;

/// Tokens of the first and of the longest pause.
const PAUSE: (usize, usize) = (64, 1024);

/// The time for a round, in decoding steps.
#[derive(Debug, Clone, Copy)]
pub(super) struct Cost {
    /// For a draft: to make it, and to pass one more row.
    draft: f32,
    /// For a pass of several rows more than for one.
    round: f32,
    /// For the device's wait for the last token.
    wait: f32,
}

impl Cost {
    /// The costs on `device` if each draft takes `draft` steps to make.
    pub(super) fn new(device: Device, draft: f32) -> Self {
        // A pass reads the weights once for all rows. On a CPU, 9 rows took 1.44 times the time of
        // one, and 2 rows 1.05 times. A GPU's next step cannot begin before the last token is read;
        // its values are estimates that were not measured.
        match device {
            Device::Cpu => Self {
                draft: draft + 0.06,
                round: 0.1,
                wait: 0.02,
            },
            Device::Gpu => Self {
                draft: draft + 0.05,
                round: 0.1,
                wait: 0.2,
            },
        }
    }

    /// Steps that a round saves.
    fn saved(self, drafted: usize, accepted: usize) -> f32 {
        let round = if drafted > 0 { self.round } else { 0.0 };
        accepted as f32 - drafted as f32 * self.draft - round - self.wait
    }
}

/// Number of drafts of the next round.
///
/// It doubles when all drafts are accepted, and is one more than the accepted drafts otherwise. When
/// rounds have lost more time than they have saved, drafts pause; after a pause, one round is tried.
/// Each pause is twice as long as the last, until a round saves time again.
#[derive(Debug)]
pub(super) struct DraftLength {
    most: usize,
    cost: Cost,
    current: usize,
    /// Steps saved less steps lost, within bounds.
    saved: f32,
    /// Tokens until the next round.
    pause: usize,
    /// Tokens of the next pause.
    next_pause: usize,
}

impl DraftLength {
    /// At most `most` drafts.
    pub(super) fn new(most: usize, cost: Cost) -> Self {
        Self {
            most,
            cost,
            current: FIRST.min(most),
            saved: 0.0,
            pause: 0,
            next_pause: PAUSE.0,
        }
    }

    /// Largest number of drafts for the next round; 0 in a pause.
    pub(super) fn next(&self) -> usize {
        if self.pause > 0 { 0 } else { self.current }
    }

    /// Takes the result of a round; one without drafts was a wait in vain.
    pub(super) fn verified(&mut self, drafted: usize, accepted: usize) {
        let saved = self.cost.saved(drafted, accepted);
        self.saved = (self.saved + saved).min(MOST_SAVED);
        if saved > 0.0 {
            self.next_pause = PAUSE.0;
        }
        if self.saved <= MOST_LOST {
            // Any loss begins the next pause.
            self.saved = MOST_LOST;
            self.current = FIRST.min(self.most);
            self.pause = self.next_pause;
            self.next_pause = (2 * self.next_pause).min(PAUSE.1);
        } else if drafted > 0 {
            let all = accepted == drafted;
            let next = if all { 2 * drafted } else { accepted + 1 };
            self.current = next.clamp(FIRST.min(self.most), self.most);
        }
    }

    /// Counts a token of a pass without drafts.
    pub(super) fn single(&mut self) {
        self.pause = self.pause.saturating_sub(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEVICES: [Device; 2] = [Device::Cpu, Device::Gpu];

    fn length(most: usize, device: Device, draft: f32) -> DraftLength {
        DraftLength::new(most, Cost::new(device, draft))
    }

    /// Rejects all drafts until a pause, and returns its length.
    fn reject(length: &mut DraftLength) -> usize {
        while length.next() > 0 {
            length.verified(length.next(), 0);
        }
        let mut tokens = 0;
        while length.next() == 0 {
            length.single();
            tokens += 1;
        }
        tokens
    }

    #[test]
    fn grows_when_all_drafts_are_accepted() {
        for device in DEVICES {
            let mut length = length(10, device, 0.0);
            let mut drafts = Vec::new();
            for _ in 0..5 {
                drafts.push(length.next());
                length.verified(length.next(), length.next());
            }
            assert_eq!(drafts, [2, 4, 8, 10, 10]);
            length.verified(10, 4);
            assert_eq!(length.next(), 5);
            length.verified(5, 0);
            assert_eq!(length.next(), 2);
            // Fewer drafts than allowed were found.
            length.verified(3, 3);
            assert_eq!(length.next(), 6);
        }
        assert_eq!(length(1, Device::Cpu, 0.0).next(), 1);
    }

    #[test]
    fn pauses_longer_each_time_drafts_are_rejected() {
        for device in DEVICES {
            let mut length = length(4, device, 0.0);
            let pauses: Vec<_> = (0..6).map(|_| reject(&mut length)).collect();
            assert_eq!(pauses, [64, 128, 256, 512, 1024, 1024]);
            // A round that saves time shortens the next pause.
            length.verified(2, 2);
            assert_eq!(reject(&mut length), 64);
        }
    }

    #[test]
    fn rejected_drafts_cost_few_steps() {
        for device in DEVICES {
            for tokens in [64, 128, 512, 2048] {
                let mut length = length(10, device, 0.1);
                let mut lost = 0.0;
                for _ in 0..tokens {
                    match length.next() {
                        0 => length.single(),
                        drafts => {
                            lost -= length.cost.saved(drafts, 0);
                            length.verified(drafts, 0);
                        }
                    }
                }
                assert!(lost / tokens as f32 <= 0.05, "{lost} of {tokens}");
            }
        }
    }

    #[test]
    fn drafts_that_cost_more_than_they_save_pause() {
        let mut length = length(4, Device::Cpu, 1.5);
        for _ in 0..2 {
            assert!(length.next() > 0);
            length.verified(length.next(), length.next());
        }
        assert_eq!(length.next(), 0);
    }
}
