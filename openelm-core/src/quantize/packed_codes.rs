//! A quantised matrix in progress, with one byte for each number.

use mlx_rs::Array;

use crate::{
    error::Result,
    mlx::{Dtype, Quantization, QuantizedMatrix},
};

/// The integers of a quantised matrix `[rows, width]`, with a scale and a bias for each group.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Codes {
    pub(super) rows: usize,
    pub(super) width: usize,
    /// `[rows, width]`.
    pub(super) codes: Vec<u8>,
    /// `[rows, width / group_size]`.
    pub(super) scales: Vec<f32>,
    /// Shape of `scales`.
    pub(super) biases: Vec<f32>,
}

impl Codes {
    /// A matrix of zeros.
    pub(super) fn new(rows: usize, width: usize, group_size: usize) -> Self {
        let groups = rows * width / group_size;
        Self {
            rows,
            width,
            codes: vec![0; rows * width],
            scales: vec![0.0; groups],
            biases: vec![0.0; groups],
        }
    }

    /// The matrix in MLX's form, with scales and biases of type `dtype`.
    pub(super) fn pack(&self, quantization: Quantization, dtype: Dtype) -> Result<QuantizedMatrix> {
        let shape = |[rows, width]: [usize; 2]| [rows as i32, width as i32];
        let words = pack(&self.codes, self.width, quantization.bits());
        let packed = shape(quantization.packed_shape(self.rows, self.width));
        let groups = shape(quantization.scales_shape(self.rows, self.width));
        let float = |values: &[f32]| -> Result<Array> {
            Ok(Array::from_slice(values, &groups).as_dtype(dtype.mlx())?)
        };
        Ok(QuantizedMatrix {
            weight: Array::from_slice(&words, &packed),
            scales: float(&self.scales)?,
            biases: Some(float(&self.biases)?),
            quantization,
        })
    }
}

/// The `codes` of rows of `width` numbers as a stream of `bits` bits each, the lowest bits first,
/// in words of 32 bits. A row fills whole words, because its width is a multiple of 32.
fn pack(codes: &[u8], width: usize, bits: usize) -> Vec<u32> {
    let mut words = Vec::with_capacity(codes.len() * bits / 32);
    for row in codes.chunks(width.max(1)) {
        let (mut buffer, mut filled) = (0_u64, 0);
        for &code in row {
            buffer |= u64::from(code) << filled;
            filled += bits;
            if filled >= 32 {
                words.push(buffer as u32);
                buffer >>= 32;
                filled -= 32;
            }
        }
    }
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::QuantizationMode;

    #[test]
    fn mlx_reads_the_packed_numbers() {
        for bits in [2, 3, 4, 5, 6, 8] {
            for group_size in [32, 64] {
                let affine =
                    Quantization::new(QuantizationMode::Affine, Some(bits), Some(group_size));
                let affine = affine.unwrap();
                let mut codes = Codes::new(3, 128, group_size);
                for (i, code) in codes.codes.iter_mut().enumerate() {
                    *code = (i * 37 % (1 << bits)) as u8;
                }
                for (i, scale) in codes.scales.iter_mut().enumerate() {
                    *scale = 0.25 * (i + 1) as f32;
                }
                codes.biases.fill(-1.0);
                let packed = codes.pack(affine, Dtype::Float32).unwrap();
                for found in [
                    packed.dequantize(mlx_rs::Dtype::Float32).unwrap(),
                    packed.clone().expand(Dtype::Float32).unwrap(),
                ] {
                    let found = found.to_vec_exact::<f32>().unwrap();
                    for (i, (found, code)) in found.iter().zip(&codes.codes).enumerate() {
                        let expected = f32::from(*code) * codes.scales[i / group_size] - 1.0;
                        assert_eq!(*found, expected, "{bits} bits, number {i}");
                    }
                }
            }
        }
    }
}
