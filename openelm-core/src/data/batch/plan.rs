//! The order of training.
//!
//! The random numbers are ChaCha's, whose stream is a published standard that `rand_chacha`
//! guarantees; the key is the seed and the epoch, and the shuffle is implemented here. So an epoch
//! has the same order on every machine and with every version of that crate, and resume needs only
//! the epoch and the index of the batch.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{RngCore, SeedableRng},
};

use super::batch::padded_length;
use crate::error::{Error, Result};

/// The batches of every epoch.
///
/// Rows are sorted by length and cut into batches, of which the last may be short; so every row is
/// used once per epoch with little padding. The order of the batches differs between epochs, and so
/// does the order among rows that are padded to the same length.
#[derive(Clone, Debug)]
pub struct BatchPlan {
    /// Padded length of each example.
    lengths: Vec<usize>,
    batch_size: usize,
    seed: u64,
}

impl BatchPlan {
    /// The plan for examples of `lengths` tokens, `batch_size` per batch; `pad_to` is the value of
    /// [`Padding`](crate::data::batch::batch::Padding).
    ///
    /// # Errors
    ///
    /// [`Error::Option`] if `batch_size` is 0 or `lengths` is empty.
    pub fn new(lengths: &[usize], batch_size: usize, pad_to: usize, seed: u64) -> Result<Self> {
        if batch_size == 0 {
            return Err(Error::at_least("batch_size", 1, 0));
        }
        if lengths.is_empty() {
            return Err(Error::option("lengths", "there is no example"));
        }
        let predicting = lengths.iter().map(|length| length.saturating_sub(1));
        Ok(Self {
            lengths: predicting
                .map(|length| padded_length(length, pad_to))
                .collect(),
            batch_size,
            seed,
        })
    }

    /// Number of batches in every epoch.
    pub fn batches_per_epoch(&self) -> usize {
        self.lengths.len().div_ceil(self.batch_size)
    }

    /// The batches of `epoch`, counted from 0, as indices of examples. Each example occurs exactly
    /// once.
    pub fn epoch(&self, epoch: u64) -> Vec<Vec<usize>> {
        let mut random = self.random(epoch);
        let mut order: Vec<_> = self.lengths.iter().copied().enumerate().collect();
        shuffle(&mut order, &mut random);
        // A stable sort: rows of equal length stay shuffled.
        order.sort_by_key(|&(_, length)| length);
        let mut batches: Vec<Vec<_>> = order
            .chunks(self.batch_size)
            .map(|batch| batch.iter().map(|&(index, _)| index).collect())
            .collect();
        shuffle(&mut batches, &mut random);
        batches
    }

    fn random(&self, epoch: u64) -> ChaCha8Rng {
        let mut key = [0; 32];
        let words = self
            .seed
            .to_le_bytes()
            .into_iter()
            .chain(epoch.to_le_bytes());
        for (byte, word) in key.iter_mut().zip(words) {
            *byte = word;
        }
        ChaCha8Rng::from_seed(key)
    }
}

/// Fisher-Yates shuffle, from the end.
fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        items.swap(last, up_to(last, random));
    }
}

/// A uniform number from 0 to `highest`.
fn up_to(highest: usize, random: &mut ChaCha8Rng) -> usize {
    let highest = highest as u64;
    let bits = u64::MAX.checked_shr(highest.leading_zeros()).unwrap_or(0);
    loop {
        let number = random.next_u64() & bits;
        if number <= highest {
            return number as usize;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTHS: [usize; 11] = [5, 90, 3, 40, 5, 5, 70, 33, 2, 64, 5];

    fn plan(batch_size: usize, pad_to: usize, seed: u64) -> BatchPlan {
        BatchPlan::new(&LENGTHS, batch_size, pad_to, seed).unwrap()
    }

    #[test]
    fn epoch_has_every_row_once_grouped_by_length() {
        let plan = plan(3, 1, 7);
        assert_eq!(plan.batches_per_epoch(), 4);
        for epoch in 0..50 {
            let batches = plan.epoch(epoch);
            assert_eq!(batches.len(), 4);
            let mut seen: Vec<_> = batches.concat();
            seen.sort_unstable();
            assert_eq!(seen, (0..11).collect::<Vec<_>>());
            let mut by_length = batches.clone();
            by_length.sort_by_key(|batch| LENGTHS[batch[0]]);
            let lengths = by_length.concat().into_iter().map(|row| LENGTHS[row]);
            assert_eq!(
                lengths.collect::<Vec<_>>(),
                [2, 3, 5, 5, 5, 5, 33, 40, 64, 70, 90]
            );
            // The last two rows are the short batch.
            assert!(batches.contains(&vec![6, 1]));
        }
    }

    #[test]
    fn order_depends_on_epoch_and_seed_only() {
        assert_eq!(plan(2, 1, 7).epoch(3), plan(2, 1, 7).epoch(3));
        assert_ne!(plan(2, 1, 7).epoch(3), plan(2, 1, 7).epoch(4));
        assert_ne!(plan(2, 1, 7).epoch(3), plan(2, 1, 8).epoch(3));
        // Not only the order of the batches: rows of one length are grouped differently.
        let members = |epoch| {
            let mut batches = plan(2, 1, 7).epoch(epoch);
            batches.iter_mut().for_each(|batch| batch.sort_unstable());
            batches.sort();
            batches
        };
        assert!((1..10).any(|epoch| members(epoch) != members(0)));
    }

    #[test]
    fn rows_of_one_padded_length_are_mixed() {
        let batches = |pad_to| -> Vec<Vec<usize>> {
            (0..40)
                .flat_map(|epoch| plan(2, pad_to, 1).epoch(epoch))
                .collect()
        };
        let together = |batches: &[Vec<usize>]| {
            batches
                .iter()
                .any(|batch| batch.contains(&1) && batch.contains(&9))
        };
        assert!(together(&batches(128)));
        assert!(!together(&batches(1)));
    }

    /// Reference: ChaCha8 and the shuffle, implemented in Python from their definitions.
    #[test]
    fn order_is_stable_across_versions() {
        assert_eq!(
            plan(4, 32, 0).epoch(0),
            [vec![5, 4, 7, 2], vec![0, 10, 8, 9], vec![3, 6, 1]]
        );
        assert_eq!(
            plan(4, 32, 42).epoch(5),
            [vec![0, 8, 10, 3], vec![4, 5, 2, 7], vec![9, 6, 1]]
        );
    }

    #[test]
    fn rejects_empty_data() {
        let message = |lengths: &[usize], size| {
            let refused = BatchPlan::new(lengths, size, 32, 0);
            refused.unwrap_err().to_string()
        };
        assert_eq!(message(&[2], 0), "batch_size: expected at least 1, found 0");
        assert_eq!(message(&[], 1), "lengths: there is no example");
    }
}
