//! Dequantises blocks of a tensor to 32-bit floats.
//!
//! The layouts follow `ggml-common.h`. A block of 32 begins with its scale `d` and, in some
//! types, its minimum `m`, both 16-bit floats; an element is `d * q + m`. The low nibbles of 16
//! bytes are the first half of the block and the high nibbles the second; a fifth bit of each
//! element is in a 32-bit word before these bytes.

use half::f16;

use super::tensor_type::TensorType;

/// The elements of whole blocks, as little-endian bytes; empty for types that are not quantised.
pub(crate) fn dequantize(kind: TensorType, bytes: &[u8]) -> Vec<u8> {
    let elements = bytes.len() / kind.block_bytes() * kind.block_elements();
    let mut out = Vec::with_capacity(elements * 4);
    let mut push = |value: f32| out.extend(value.to_le_bytes());
    match kind {
        TensorType::F32 | TensorType::F16 | TensorType::Bf16 => {}
        TensorType::Q4_0 => {
            for block in bytes.as_chunks::<18>().0 {
                let (d, q) = (float(block[0], block[1]), nibbles(&block[2..]));
                q.for_each(|q| push(d * (f32::from(q) - 8.0)));
            }
        }
        TensorType::Q4_1 => {
            for block in bytes.as_chunks::<20>().0 {
                let (d, m) = (float(block[0], block[1]), float(block[2], block[3]));
                nibbles(&block[4..]).for_each(|q| push(d * f32::from(q) + m));
            }
        }
        TensorType::Q5_0 => {
            for block in bytes.as_chunks::<22>().0 {
                let d = float(block[0], block[1]);
                let high = word([block[2], block[3], block[4], block[5]]);
                let q = std::iter::zip(nibbles(&block[6..]), high);
                q.for_each(|(low, high)| push(d * (f32::from(low | high << 4) - 16.0)));
            }
        }
        TensorType::Q5_1 => {
            for block in bytes.as_chunks::<24>().0 {
                let (d, m) = (float(block[0], block[1]), float(block[2], block[3]));
                let high = word([block[4], block[5], block[6], block[7]]);
                let q = std::iter::zip(nibbles(&block[8..]), high);
                q.for_each(|(low, high)| push(d * f32::from(low | high << 4) + m));
            }
        }
        TensorType::Q8_0 => {
            for block in bytes.as_chunks::<34>().0 {
                let d = float(block[0], block[1]);
                block[2..]
                    .iter()
                    .for_each(|q| push(d * f32::from(*q as i8)));
            }
        }
        TensorType::Q6K => bytes
            .as_chunks::<210>()
            .0
            .iter()
            .for_each(|block| q6_k(block, &mut push)),
    }
    out
}

/// 128 bytes with the low 4 bits, 64 with the high 2, 16 signed scales, then their scale. Each
/// half of the block uses 64 + 32 + 8 of these bytes, for four groups of 32 elements.
fn q6_k(block: &[u8; 210], push: &mut impl FnMut(f32)) {
    let d = float(block[208], block[209]);
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let halves = std::iter::zip(low.chunks(64), high.chunks(32)).zip(scales.chunks(8));
    for ((low, high), scales) in halves {
        for group in 0..4 {
            // Groups 0 and 2 share the first 32 low bytes, 1 and 3 the last.
            let low = low.iter().skip(32 * (group % 2));
            let scales = scales
                .iter()
                .skip(2 * group)
                .flat_map(|scale| [*scale as i8; 16]);
            for ((low, high), scale) in std::iter::zip(low, high).zip(scales) {
                let low = if group < 2 { low & 15 } else { low >> 4 };
                let q = low | (high >> (2 * group) & 3) << 4;
                push(d * f32::from(scale) * (f32::from(q) - 32.0));
            }
        }
    }
}

fn float(low: u8, high: u8) -> f32 {
    f16::from_le_bytes([low, high]).to_f32()
}

/// The low nibbles, then the high ones.
fn nibbles(bytes: &[u8]) -> impl Iterator<Item = u8> {
    let low = bytes.iter().map(|byte| byte & 15);
    low.chain(bytes.iter().map(|byte| byte >> 4))
}

/// The bits of a little-endian word, least significant first.
fn word(bytes: [u8; 4]) -> impl Iterator<Item = u8> {
    let word = u32::from_le_bytes(bytes);
    (0..32).map(move |bit| (word >> bit & 1) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn floats(kind: TensorType, bytes: &[u8]) -> Vec<f32> {
        let bytes = dequantize(kind, bytes);
        let (fours, rest) = bytes.as_chunks::<4>();
        assert!(rest.is_empty());
        fours.iter().map(|four| f32::from_le_bytes(*four)).collect()
    }

    #[test]
    fn nibbles_are_halves_of_a_block() {
        let mut block = [0x88; 18];
        (block[0], block[1], block[2]) = (0x00, 0x38, 0x1f); // d = 0.5
        let values = floats(TensorType::Q4_0, &block);
        assert_eq!(values.len(), 32);
        assert_eq!((values[0], values[1], values[16]), (3.5, 0.0, -3.5));
    }

    #[test]
    fn fifth_bits_are_in_a_separate_word() {
        let mut block = [0; 24];
        // d = 1, m = -2, bits 0 and 31.
        block[..8].copy_from_slice(&[0x00, 0x3c, 0x00, 0xc0, 1, 0, 0, 0x80]);
        block[8] = 0x05;
        let values = floats(TensorType::Q5_1, &block);
        assert_eq!((values[0], values[16], values[31]), (19.0, -2.0, 14.0));
    }

    #[test]
    fn blocks_of_256_have_16_scales() {
        let mut block = [0; 210];
        (block[208], block[209]) = (0x00, 0x3c); // d = 1
        block[192] = 2; // elements 0 to 15
        block[207] = 0xff; // -1 for elements 240 to 255
        block[0] = 0x0f;
        block[128] = 0x03; // element 0: 15 + 48 - 32 = 31
        let values = floats(TensorType::Q6K, &block);
        assert_eq!(values.len(), 256);
        assert_eq!((values[0], values[1], values[16]), (62.0, -64.0, -0.0));
        assert_eq!(values[255], 32.0);
    }

    #[test]
    fn partial_blocks_are_ignored() {
        for kind in TensorType::ALL {
            assert!(dequantize(kind, &[0; 1]).is_empty());
        }
    }
}
