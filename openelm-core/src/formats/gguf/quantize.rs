//! Converts 32-bit floats to the bytes of a tensor.
//!
//! Q8_0 and Q4_0 round like ggml's reference (`quantize_row_q8_0_ref`, `quantize_row_q4_0_ref` in
//! `ggml-quants.c`), bit for bit; 16-bit floats round to nearest, ties to even.

use half::{bf16, f16};

use super::{dequantize::dequantize, tensor_type::TensorType};

/// Elements of a block of Q8_0 or Q4_0.
const BLOCK: usize = 32;

/// Appends `values`, which are whole blocks, to `out`; the error is the reason of a refusal.
pub(crate) fn quantize(kind: TensorType, values: &[f32], out: &mut Vec<u8>) -> Result<(), String> {
    let (blocks, rest) = values.as_chunks::<BLOCK>();
    match kind {
        TensorType::F32 => out.extend(values.iter().flat_map(|value| value.to_le_bytes())),
        TensorType::Bf16 => out.extend(
            values
                .iter()
                .flat_map(|value| bf16::from_f32(*value).to_le_bytes()),
        ),
        TensorType::F16 => {
            for &value in values {
                out.extend(half(value)?);
            }
        }
        TensorType::Q8_0 | TensorType::Q4_0 if !rest.is_empty() => {
            return Err(format!(
                "{} elements are not a multiple of {BLOCK}",
                values.len()
            ));
        }
        TensorType::Q8_0 => blocks.iter().try_for_each(|block| q8_0(block, out))?,
        TensorType::Q4_0 => blocks.iter().try_for_each(|block| q4_0(block, out))?,
        other => return Err(format!("{other} is read only")),
    }
    Ok(())
}

/// `values` after rounding to `kind`; the error is the reason of a refusal.
pub(crate) fn rounded(kind: TensorType, values: &[f32]) -> Result<Vec<f32>, String> {
    let mut stored = Vec::new();
    quantize(kind, values, &mut stored)?;
    let bytes = dequantize(kind, &stored);
    let (fours, _) = bytes.as_chunks();
    Ok(fours.iter().map(|&four| f32::from_le_bytes(four)).collect())
}

fn half(value: f32) -> Result<[u8; 2], String> {
    let short = f16::from_f32(value);
    if short.is_infinite() && value.is_finite() {
        return Err(format!("{value} is beyond the range of 16-bit floats"));
    }
    Ok(short.to_le_bytes())
}

fn check(block: &[f32; BLOCK]) -> Result<(), String> {
    match block.iter().find(|value| !value.is_finite()) {
        Some(value) => Err(format!("{value} cannot be quantised")),
        None => Ok(()),
    }
}

fn inverse(scale: f32) -> f32 {
    if scale == 0.0 { 0.0 } else { 1.0 / scale }
}

/// The scale, then 32 signed bytes; the largest value becomes 127.
fn q8_0(block: &[f32; BLOCK], out: &mut Vec<u8>) -> Result<(), String> {
    check(block)?;
    let largest = block
        .iter()
        .fold(0.0, |most: f32, value| most.max(value.abs()));
    let scale = largest / 127.0;
    let inverse = inverse(scale);
    out.extend(half(scale)?);
    // `round` rounds halves away from zero, like C's.
    out.extend(
        block
            .iter()
            .map(|value| (value * inverse).round() as i8 as u8),
    );
    Ok(())
}

/// The scale, then 16 bytes with the first half of the block in their low nibbles; the value of
/// largest magnitude becomes -8, and the scale has its sign.
fn q4_0(block: &[f32; BLOCK], out: &mut Vec<u8>) -> Result<(), String> {
    check(block)?;
    let largest = block.iter().fold(0.0, |most: f32, &value| {
        if most.abs() < value.abs() {
            value
        } else {
            most
        }
    });
    let scale = largest / -8.0;
    let inverse = inverse(scale);
    out.extend(half(scale)?);
    let nibble = |value: f32| ((value * inverse + 8.5) as u8).min(15);
    let (low, high) = block.split_at(BLOCK / 2);
    let pairs = std::iter::zip(low, high);
    out.extend(pairs.map(|(&low, &high)| nibble(low) | nibble(high) << 4));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quantized(kind: TensorType, values: &[f32]) -> Vec<u8> {
        let mut out = Vec::new();
        quantize(kind, values, &mut out).unwrap();
        out
    }

    fn problem(kind: TensorType, values: &[f32]) -> String {
        quantize(kind, values, &mut Vec::new()).unwrap_err()
    }

    #[test]
    fn halves_round_away_from_zero_in_8_bits() {
        let mut block = [0.0; 32];
        block[..5].copy_from_slice(&[127.0, 0.5, -0.5, 1.5, -126.49]);
        let bytes = quantized(TensorType::Q8_0, &block);
        assert_eq!(bytes[..2], [0x00, 0x3c]); // 1.0
        assert_eq!(bytes[2..8], [127, 1, 255, 2, 130, 0]);
        assert_eq!(bytes.len(), 34);
    }

    #[test]
    fn the_largest_value_is_minus_8_in_4_bits() {
        let mut block = [0.0; 32];
        (block[0], block[1], block[16], block[31]) = (-8.0, 8.0, 3.4, -0.6);
        let bytes = quantized(TensorType::Q4_0, &block);
        assert_eq!(bytes[..2], [0x00, 0x3c]); // 1.0
        assert_eq!(bytes[2..5], [0xb0, 0x8f, 0x88]);
        assert_eq!(bytes[17], 0x78);
        // Only zeros: the reference's scale is -0.
        let zeros = quantized(TensorType::Q4_0, &[0.0; 32]);
        assert_eq!(zeros[..3], [0x00, 0x80, 0x88]);
        assert_eq!(quantized(TensorType::Q4_0, &[-0.0; 32]), zeros);
    }

    #[test]
    fn rejects_values_the_type_cannot_hold() {
        assert!(problem(TensorType::F16, &[70_000.0]).contains("70000 is beyond the range"));
        assert_eq!(
            quantized(TensorType::F16, &[65_504.0, f32::INFINITY]),
            [0xff, 0x7b, 0x00, 0x7c]
        );
        let mut block = [0.0; 32];
        block[7] = f32::NAN;
        assert_eq!(problem(TensorType::Q8_0, &block), "NaN cannot be quantised");
        assert_eq!(problem(TensorType::Q4_0, &block), "NaN cannot be quantised");
        block[7] = 1e7;
        assert!(problem(TensorType::Q4_0, &block).contains("beyond the range"));
        assert!(problem(TensorType::Q8_0, &block).contains("beyond the range"));
        assert!(problem(TensorType::Q8_0, &block[..31]).contains("31 elements"));
        assert_eq!(problem(TensorType::Q6K, &[0.0; 256]), "Q6_K is read only");
    }
}
