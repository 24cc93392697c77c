//! Seeds derived from a seed and a number, and a shuffle by a seed.

use rand_chacha::{ChaCha8Rng, rand_core::RngCore};

/// A seed derived from two numbers (SplitMix64's finaliser).
pub(crate) fn derive_seed(seed: u64, number: u64) -> u64 {
    let mut z = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Fisher-Yates shuffle, from the end. The items are far fewer than 2^64, so the bias of the
/// remainder is negligible.
pub(crate) fn shuffle<T>(items: &mut [T], random: &mut ChaCha8Rng) {
    for last in (1..items.len()).rev() {
        let other = random.next_u64() % (last as u64 + 1);
        items.swap(last, usize::try_from(other).unwrap_or(last));
    }
}

/// The seed of the text with this `index` among the texts of a run with `seed`, so that equal prompts
/// have different texts. It has the 53 bits that a JSON number keeps.
pub fn seed_of_text(seed: u64, index: usize) -> u64 {
    derive_seed(seed, index as u64) >> 11
}
