//! The order of files in an epoch.

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};

use crate::seed::shuffle;

/// Shuffles `files` by the seed, the epoch, and the list and stream that they are of.
pub(super) fn files(files: &mut [usize], seed: u64, epoch: u64, (list, stream): (u64, u64)) {
    let mut key = [0; 32];
    let numbers = [seed, epoch, list, stream].map(u64::to_le_bytes);
    for (place, byte) in key.iter_mut().zip(numbers.into_iter().flatten()) {
        *place = byte;
    }
    shuffle(files, &mut ChaCha8Rng::from_seed(key));
}
