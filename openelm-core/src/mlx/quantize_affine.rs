//! MLX's affine quantisation on a CPU (`mx.quantize`), as a check of quantised numbers: written a
//! second time, it also checks MLX, and takes a fifth of the time.
//!
//! A group has the scale `(max - min) / (2^bits - 1)`, negative unless the number of the largest
//! magnitude is the minimum. That number becomes the bias, and the scale is changed so that 0 is
//! exact. A number is `round((value - bias) / scale)`.

use half::{bf16, f16};

use super::dtype::Dtype;

/// True if `numbers`, with `scales` and `biases` of type `dtype`, are the quantised `values`, which
/// are of that type too. All are given in f32; a group has `group_size` values, a multiple of 8.
pub(crate) fn is_quantized(
    values: &[f32],
    numbers: &[f32],
    [scales, biases]: [&[f32]; 2],
    dtype: Dtype,
    bits: usize,
    group_size: usize,
) -> bool {
    let largest = ((1 << bits) - 1) as f32;
    let groups = values.chunks(group_size).zip(numbers.chunks(group_size));
    let mut groups = groups.zip(scales.iter().zip(biases));
    groups.all(|((values, numbers), (&scale, &bias))| {
        let (own_scale, own_bias) = scale_and_bias(values, largest);
        let is_same = |own, stored: f32| rounded(own, dtype).to_bits() == stored.to_bits();
        let is_number = |all, (value, number): (&f32, &f32)| {
            let own = round((value - own_bias) / own_scale);
            // `f32::max` and `f32::min` take several times as long.
            let own = if own < largest { own } else { largest };
            let own = if own > 0.0 { own } else { 0.0 };
            all & (own == *number)
        };
        is_same(own_scale, scale)
            && is_same(own_bias, bias)
            && values.iter().zip(numbers).fold(true, is_number)
    })
}

/// The scale and the bias of a group, whose numbers are at most `largest`.
fn scale_and_bias(values: &[f32], largest: f32) -> (f32, f32) {
    let [mut low, mut high] = [[f32::INFINITY; 8], [f32::NEG_INFINITY; 8]];
    for values in values.as_chunks::<8>().0 {
        for ((low, high), &value) in low.iter_mut().zip(&mut high).zip(values) {
            *low = if value < *low { value } else { *low };
            *high = if value > *high { value } else { *high };
        }
    }
    let low = low.into_iter().fold(f32::INFINITY, f32::min);
    let high = high.into_iter().fold(f32::NEG_INFINITY, f32::max);
    let is_low = low.abs() > high.abs();
    let scale = ((high - low) / largest).max(SMALLEST_SCALE);
    let (scale, edge) = if is_low { (scale, low) } else { (-scale, high) };
    let steps = round(edge / scale);
    if steps == 0.0 {
        (scale, 0.0)
    } else {
        (edge / steps, edge)
    }
}

/// The scale of a group of equal values.
const SMALLEST_SCALE: f32 = 1e-7;

/// Rounds a number below 2^22 to the nearest integer, ties to even: the sum has no fraction bits.
fn round(value: f32) -> f32 {
    const SHIFT: f32 = 12_582_912.0;
    (value + SHIFT) - SHIFT
}

fn rounded(value: f32, dtype: Dtype) -> f32 {
    match dtype {
        Dtype::Float32 => value,
        Dtype::Float16 => f16::from_f32(value).to_f32(),
        Dtype::Bfloat16 => bf16::from_f32(value).to_f32(),
    }
}

#[cfg(test)]
mod tests {
    use mlx_rs::{Array, Dtype as MlxDtype};

    use super::*;
    use crate::mlx::{
        Device, Quantization, QuantizationMode, QuantizedMatrix, dequantize_affine::unpack,
    };

    fn floats(array: &Array) -> Vec<f32> {
        let array = array.as_dtype(MlxDtype::Float32).unwrap();
        array.to_vec_exact::<f32>().unwrap()
    }

    /// Groups of all kinds: random, of one sign, equal, of zeros, with one large value.
    fn values() -> Array {
        let width = 256;
        let value = |i: usize| {
            let random = ((i * 7919 % 10_007) as f32 - 5000.0) / 3001.0;
            match i / width {
                0..8 => random,
                8 => random.abs() + 3.0,
                9 => -random.abs() - 3.0,
                10 => 0.25,
                11 => 0.0,
                12 => {
                    if i % 64 == 5 {
                        100.0
                    } else {
                        random
                    }
                }
                _ => random * 1e-6,
            }
        };
        let values: Vec<f32> = (0..14 * width).map(value).collect();
        Array::from_slice(&values, &[14, width as i32])
    }

    #[test]
    fn agrees_with_mlx() {
        if Device::current().unwrap() != Device::Cpu {
            return;
        }
        for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
            let values = values().as_dtype(dtype.mlx()).unwrap();
            for bits in [2, 3, 4, 5, 6, 8] {
                for group_size in [32, 64, 128] {
                    let mode = QuantizationMode::Affine;
                    let quantization = Quantization::new(mode, Some(bits), Some(group_size));
                    let packed = QuantizedMatrix::quantize(&values, quantization.unwrap()).unwrap();
                    let words = packed.weight.to_vec_exact::<u32>().unwrap();
                    let mut numbers = vec![0.0; values.size()];
                    unpack(&words, bits, &mut numbers);
                    let (scales, biases) = (floats(&packed.scales), packed.biases.unwrap());
                    let mut biases = floats(&biases);
                    let values = floats(&values);
                    let check = |numbers: &[f32], biases: &[f32]| {
                        let scales = [&scales[..], biases];
                        is_quantized(&values, numbers, scales, dtype, bits, group_size)
                    };
                    assert!(check(&numbers, &biases), "{dtype} {bits} {group_size}");
                    let mut changed = numbers.clone();
                    changed[777] = if changed[777] == 0.0 { 1.0 } else { 0.0 };
                    assert!(!check(&changed, &biases), "{dtype} {bits} {group_size}");
                    biases[3] = -biases[3];
                    assert!(!check(&numbers, &biases), "{dtype} {bits} {group_size}");
                }
            }
        }
    }
}
