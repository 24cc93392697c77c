//! The order of batches in `mlx_lm.lora` 0.32.2.
//!
//! mlx-lm seeds numpy's legacy generator once (`np.random.seed`) and draws one
//! `np.random.permutation` of the batches at the start of every epoch of training and of every
//! evaluation from one stream: a Mersenne Twister seeded by `init_genrand`, and numpy's shuffle,
//! which draws by masking and rejection.

use rand_mt::Mt;

use crate::error::{Error, Result};

/// The batches of mlx-lm before the shuffle, as indices of rows: sorted by mlx-lm's measure of
/// length, cut into batches of `batch_size`; remaining rows are dropped.
///
/// This measure is the number of keys in the JSON row
/// ([`Dataset::key_counts`](crate::data::dataset::Dataset::key_counts)), so rows mostly stay in the
/// order of the file.
///
/// # Errors
///
/// [`Error::Option`] if `batch_size` is 0 or there are fewer rows, as in mlx-lm.
pub fn mlx_lm_batches(key_counts: &[usize], batch_size: usize) -> Result<Vec<Vec<usize>>> {
    if batch_size == 0 || key_counts.len() < batch_size {
        return Err(Error::option(
            "batch_size",
            format!(
                "expected 1 to {}, the number of rows, found {batch_size}",
                key_counts.len()
            ),
        ));
    }
    let mut order: Vec<_> = (0..).zip(key_counts).collect();
    order.sort_by_key(|&(_, keys)| keys);
    Ok(order
        .chunks_exact(batch_size)
        .map(|batch| batch.iter().map(|&(row, _)| row).collect())
        .collect())
}

/// The stream of permutations that training and evaluation share.
///
/// The draws of `mlx_lm.lora`, in order: an epoch of training, when its first batch is requested;
/// then, at step 1, every `steps_per_eval` and the last step, after the step's batch is drawn and
/// before it is trained on, the evaluation, if there is a validation set and `val_batches` is not
/// 0; at the end the test. An evaluation of a part of the batches uses the first ones of its
/// permutation. An epoch without steps is not drawn.
///
/// mlx-lm cannot resume a run; this crate resumes by repeating the earlier draws.
#[derive(Clone, Debug)]
pub struct MlxLmOrder {
    random: Mt,
}

impl MlxLmOrder {
    /// `np.random.seed(seed)`; mlx-lm's default seed is 0.
    pub fn new(seed: u32) -> Self {
        Self {
            random: Mt::new(seed),
        }
    }

    /// One pass over `batches` in the order of a new permutation.
    pub fn pass(&mut self, batches: &[Vec<usize>]) -> Vec<Vec<usize>> {
        let order = self.permutation(batches.len());
        let batches = order.into_iter().filter_map(|index| batches.get(index));
        batches.cloned().collect()
    }

    /// `np.random.permutation(count)`.
    pub fn permutation(&mut self, count: usize) -> Vec<usize> {
        let mut order: Vec<_> = (0..count).collect();
        for last in (1..count).rev() {
            order.swap(last, self.up_to(last));
        }
        order
    }

    /// numpy's `random_interval`; beyond 32 bits numpy draws differently, which would need more
    /// batches than memory can hold.
    fn up_to(&mut self, highest: usize) -> usize {
        let highest = u32::try_from(highest).unwrap_or(u32::MAX);
        let bits = u32::MAX.checked_shr(highest.leading_zeros()).unwrap_or(0);
        loop {
            let number = self.random.next_u32() & bits;
            if number <= highest {
                return number as usize;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn permutations_match_numpy() {
        let mut order = MlxLmOrder::new(0);
        assert_eq!(order.permutation(8), [6, 2, 1, 7, 3, 0, 5, 4]);
        assert_eq!(order.permutation(3), [2, 0, 1]);
        assert_eq!(order.permutation(8), [3, 1, 2, 7, 5, 0, 6, 4]);
        assert_eq!(order.permutation(1), [0]);
        assert_eq!(
            order.permutation(17),
            [11, 12, 10, 2, 16, 14, 0, 3, 4, 13, 9, 5, 1, 8, 15, 7, 6]
        );
        let mut order = MlxLmOrder::new(42);
        assert_eq!(order.permutation(8), [1, 5, 0, 7, 2, 4, 3, 6]);
        assert_eq!(order.permutation(0), [0_usize; 0]);
        assert_eq!(order.permutation(3), [0, 1, 2]);
        let mut order = MlxLmOrder::new(u32::MAX);
        assert_eq!(order.permutation(10), [6, 9, 5, 1, 8, 0, 7, 4, 2, 3]);
        let long = MlxLmOrder::new(1).permutation(5_000);
        assert_eq!(long[..6], [2_764, 4_767, 3_814, 3_499, 2_735, 3_922]);
        assert_eq!(long[4_996..], [2_763, 905, 3_980, 235]);
    }

    #[test]
    fn batches_are_cut_from_rows_sorted_by_keys() {
        let batches = mlx_lm_batches(&[1, 1, 2, 1, 1, 1, 1], 2).unwrap();
        assert_eq!(batches, [[0, 1], [3, 4], [5, 6]]);
        let refused = |rows: &[usize], size| mlx_lm_batches(rows, size).unwrap_err().to_string();
        assert_eq!(
            refused(&[1, 1], 3),
            "batch_size: expected 1 to 2, the number of rows, found 3"
        );
        assert!(refused(&[1, 1], 0).ends_with("found 0"));
    }

    /// Batches that `mlx_lm.tuner.trainer.train` 0.32.2 requested: numpy's seed 3, batches of 2, 7
    /// steps, an evaluation of 2 batches every 3 steps, 7 training rows and 9 validation rows, of
    /// which the third has one more key.
    #[test]
    fn order_with_evaluations_matches_mlx_lm() {
        let train = mlx_lm_batches(&[1, 1, 2, 1, 1, 1, 1], 2).unwrap();
        let valid = mlx_lm_batches(&[1, 1, 2, 1, 1, 1, 1, 1, 1], 2).unwrap();
        let mut order = MlxLmOrder::new(3);
        let mut requested = Vec::new();
        let mut epoch = Vec::new().into_iter();
        for step in 1..=7 {
            let batch = epoch.next().or_else(|| {
                epoch = order.pass(&train).into_iter();
                epoch.next()
            });
            requested.push(("train", batch.unwrap()));
            if step == 1 || step % 3 == 0 || step == 7 {
                let pass = order.pass(&valid).into_iter().take(2);
                requested.extend(pass.map(|batch| ("valid", batch)));
            }
        }
        let expected = [
            ("train", [3, 4]),
            ("valid", [7, 8]),
            ("valid", [5, 6]),
            ("train", [0, 1]),
            ("train", [5, 6]),
            ("valid", [7, 8]),
            ("valid", [5, 6]),
            ("train", [0, 1]),
            ("train", [3, 4]),
            ("train", [5, 6]),
            ("valid", [5, 6]),
            ("valid", [0, 1]),
            ("train", [0, 1]),
            ("valid", [3, 4]),
            ("valid", [7, 8]),
        ];
        assert_eq!(
            requested,
            expected.map(|(part, batch)| (part, batch.to_vec()))
        );
    }
}
