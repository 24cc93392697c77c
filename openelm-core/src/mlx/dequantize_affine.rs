//! Expands MLX's affine quantisation on a CPU in one pass on all cores. MLX needs about a dozen
//! passes over memory.
//!
//! A row of a quantised matrix is a stream of bits, lowest first, over u32 words. Number `i` starts
//! at bit `i · bits`; its value is `number · scale + bias` of its group (MLX, `mx.quantize`).

use std::thread;

/// Expands `words` `[rows, groups · group_size · bits / 32]` with `scales` and `biases`
/// `[rows, groups]` to `out` `[rows, groups · group_size]`. `bits` is one of 2, 3, 4, 5, 6 and 8
/// and `group_size` a multiple of 32.
pub(crate) fn expand_affine(
    words: &[u32],
    scales: &[f32],
    biases: &[f32],
    bits: usize,
    group_size: usize,
    out: &mut [f32],
) {
    let group_words = group_size * bits / 32;
    let threads = thread::available_parallelism().map_or(1, usize::from);
    let share = scales.len().div_ceil(threads).max(MIN_GROUPS);
    thread::scope(|scope| {
        let parts = words
            .chunks(share * group_words)
            .zip(scales.chunks(share))
            .zip(biases.chunks(share))
            .zip(out.chunks_mut(share * group_size));
        for (((words, scales), biases), out) in parts {
            scope.spawn(move || {
                // A few groups at a time stay in a core's cache.
                let parts = words
                    .chunks(GROUPS * group_words)
                    .zip(scales.chunks(GROUPS))
                    .zip(biases.chunks(GROUPS))
                    .zip(out.chunks_mut(GROUPS * group_size));
                for (((words, scales), biases), out) in parts {
                    unpack(words, bits, out);
                    scale(scales, biases, group_size, out);
                }
            });
        }
    });
}

/// Writes the numbers in `words` to `out`.
pub(crate) fn unpack(words: &[u32], bits: usize, out: &mut [f32]) {
    let unpack: fn(&[u32], &mut [f32]) = match bits {
        2 => whole_words::<2>,
        4 => whole_words::<4>,
        8 => whole_words::<8>,
        3 => across_words::<3>,
        5 => across_words::<5>,
        6 => across_words::<6>,
        _ => unreachable!("a quantisation of {bits} bits"),
    };
    unpack(words, out);
}

/// Replaces the numbers in `out` by their values.
pub(crate) fn scale(scales: &[f32], biases: &[f32], group_size: usize, out: &mut [f32]) {
    let groups = scales.iter().zip(biases).zip(out.chunks_mut(group_size));
    for ((scale, bias), out) in groups {
        for out in out {
            *out = *out * scale + bias;
        }
    }
}

/// Groups that are expanded at a time.
const GROUPS: usize = 64;

/// The fewest groups per thread: a thread for fewer costs more than it saves.
const MIN_GROUPS: usize = 4096;

/// Numbers whose bit width divides the word size.
fn whole_words<const BITS: usize>(words: &[u32], out: &mut [f32]) {
    for (&word, out) in words.iter().zip(out.chunks_mut(32 / BITS)) {
        for (i, out) in out.iter_mut().enumerate() {
            let number = (word >> (i * BITS)) & ((1 << BITS) - 1);
            *out = number as f32;
        }
    }
}

/// Numbers that may span two words.
fn across_words<const BITS: usize>(words: &[u32], out: &mut [f32]) {
    let (mut held, mut bits) = (0u64, 0);
    let mut words = words.iter();
    for out in out {
        if bits < BITS {
            held |= u64::from(words.next().copied().unwrap_or(0)) << bits;
            bits += 32;
        }
        let number = held & ((1 << BITS) - 1);
        held >>= BITS;
        bits -= BITS;
        *out = number as f32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unpacks_lowest_bits_first() {
        let mut out = [0.0; 32];
        // 32 numbers i % 8 of 3 bits.
        let mut bits = vec![0u32; 3];
        for i in 0..32 {
            for bit in 0..3 {
                let at = 3 * i + bit;
                bits[at / 32] |= (((i as u32 % 8) >> bit) & 1) << (at % 32);
            }
        }
        expand_affine(&bits, &[0.5], &[-1.0], 3, 32, &mut out);
        for (i, value) in out.into_iter().enumerate() {
            assert_eq!(value, (i % 8) as f32 * 0.5 - 1.0, "{i}");
        }
        let words = [0x7654_3210, 0xFEDC_BA98, 0, 0xFFFF_FFFF];
        expand_affine(&words, &[2.0], &[1.0], 4, 32, &mut out);
        assert_eq!(out[..4], [1.0, 3.0, 5.0, 7.0]);
        assert_eq!((out[15], out[16], out[31]), (31.0, 1.0, 31.0));
    }
}
