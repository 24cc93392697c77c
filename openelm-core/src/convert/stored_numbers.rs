//! The numbers of a tensor as a checkpoint stores it, read as f32 in blocks: a comparison needs no
//! copy of the tensor in f32.

use half::{bf16, f16, slice::HalfFloatSliceExt};
use mlx_rs::{Array, Dtype as MlxDtype};

use crate::{
    error::{Error, Result},
    mlx::{Dtype, Matrix, QuantizedMatrix, is_quantized, scale, unpack},
};

/// A tensor in memory, in row-major order.
pub(super) enum StoredNumbers {
    Floating(Array),
    /// MLX's affine mode: packed numbers, and f32 scales and biases.
    Affine {
        words: Array,
        scales: Array,
        biases: Array,
        bits: usize,
        group_size: usize,
    },
}

/// Borrowed numbers, which several threads can read.
#[derive(Clone, Copy)]
pub(super) enum Numbers<'a> {
    Float32(&'a [f32]),
    Bfloat16(&'a [bf16]),
    Float16(&'a [f16]),
    Affine {
        words: &'a [u32],
        scales: &'a [f32],
        biases: &'a [f32],
        bits: usize,
        group_size: usize,
    },
}

/// Numbers per block: a multiple of all group sizes, small enough for a core's cache.
pub(super) const BLOCK: usize = 8192;

impl StoredNumbers {
    /// The numbers of `matrix`, or of a tensor of another shape.
    pub(super) fn of(matrix: &Matrix) -> Result<Self> {
        Ok(match matrix {
            Matrix::Dense(values) | Matrix::Stored(values) => Self::Floating(values.contiguous()?),
            Matrix::Quantized(packed) => Self::packed(packed)?,
        })
    }

    fn packed(packed: &QuantizedMatrix) -> Result<Self> {
        let Some(biases) = &packed.biases else {
            // MLX has the tables of the microscaling modes.
            let expanded = packed.clone().expand(Dtype::Float32)?;
            return Ok(Self::Floating(expanded.contiguous()?));
        };
        let float32 = |part: &Array| part.as_dtype(MlxDtype::Float32)?.contiguous();
        Ok(Self::Affine {
            words: packed.weight.contiguous()?,
            scales: float32(&packed.scales)?,
            biases: float32(biases)?,
            bits: packed.quantization.bits(),
            group_size: packed.quantization.group_size(),
        })
    }

    /// The numbers, after evaluation.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if the tensor is neither floating-point nor quantised, or its parts
    /// have contradicting sizes.
    pub(super) fn numbers(&self) -> Result<Numbers<'_>> {
        Ok(match self {
            Self::Floating(values) => match values.dtype() {
                MlxDtype::Bfloat16 => Numbers::Bfloat16(slice(values)?),
                MlxDtype::Float16 => Numbers::Float16(slice(values)?),
                _ => Numbers::Float32(slice(values)?),
            },
            Self::Affine {
                words,
                scales,
                biases,
                bits,
                group_size,
            } => {
                let (words, scales, biases) = (slice(words)?, slice(scales)?, slice(biases)?);
                let numbers = scales.len() * group_size;
                if words.len() * 32 != numbers * bits || biases.len() != scales.len() {
                    return Err(unreadable(
                        "the parts of a quantised matrix have contradicting shapes",
                    ));
                }
                Numbers::Affine {
                    words,
                    scales,
                    biases,
                    bits: *bits,
                    group_size: *group_size,
                }
            }
        })
    }
}

impl Numbers<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Float32(values) => values.len(),
            Self::Bfloat16(values) => values.len(),
            Self::Float16(values) => values.len(),
            Self::Affine {
                scales, group_size, ..
            } => scales.len() * group_size,
        }
    }

    /// The type of the numbers.
    pub(super) fn dtype(&self) -> Dtype {
        match self {
            Self::Bfloat16(_) => Dtype::Bfloat16,
            Self::Float16(_) => Dtype::Float16,
            Self::Float32(_) | Self::Affine { .. } => Dtype::Float32,
        }
    }

    /// Writes the numbers from `start`, a multiple of [`BLOCK`], to `out`, of at most [`BLOCK`]
    /// numbers.
    pub(super) fn read(&self, start: usize, out: &mut [f32]) {
        let end = start + out.len();
        match self {
            Self::Float32(values) => out.copy_from_slice(&values[start..end]),
            Self::Bfloat16(values) => {
                for (out, value) in out.iter_mut().zip(&values[start..end]) {
                    *out = f32::from_bits(u32::from(value.to_bits()) << 16);
                }
            }
            Self::Float16(values) => values[start..end].convert_to_f32_slice(out),
            Self::Affine {
                words,
                scales,
                biases,
                bits,
                group_size,
            } => {
                let groups = start / group_size..end / group_size;
                unpack(&words[start * bits / 32..end * bits / 32], *bits, out);
                scale(&scales[groups.clone()], &biases[groups], *group_size, out);
            }
        }
    }

    /// Like [`read`](Self::read); true if these are the affine numbers of `values`, the block of the
    /// matrix, of type `dtype`, that was quantised.
    pub(super) fn read_quantized(
        &self,
        start: usize,
        values: &[f32],
        dtype: Dtype,
        out: &mut [f32],
    ) -> bool {
        let Self::Affine {
            words,
            scales,
            biases,
            bits,
            group_size,
        } = self
        else {
            self.read(start, out);
            return false;
        };
        let end = start + out.len();
        let groups = start / group_size..end / group_size;
        let (scales, biases) = (&scales[groups.clone()], &biases[groups]);
        unpack(&words[start * bits / 32..end * bits / 32], *bits, out);
        let is_same = is_quantized(values, out, [scales, biases], dtype, *bits, *group_size);
        scale(scales, biases, *group_size, out);
        is_same
    }
}

/// The evaluated numbers of `array`.
pub(super) fn slice<T: mlx_rs::ArrayElement>(array: &Array) -> Result<&[T]> {
    array
        .try_as_slice()
        .map_err(|error| unreadable(&error.to_string()))
}

fn unreadable(problem: &str) -> Error {
    Error::checkpoint("verification", problem)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::{Quantization, QuantizationMode};

    #[test]
    fn blocks_are_those_of_the_expanded_tensor() {
        let (rows, width) = (70, 128);
        let values: Vec<f32> = (0..rows * width)
            .map(|i| ((i * 37 % 1009) as f32 - 500.0) / 300.0)
            .collect();
        let values = Array::from_slice(&values, &[rows, width]);
        let mut all = vec![Matrix::Dense(values.clone())];
        for dtype in [MlxDtype::Bfloat16, MlxDtype::Float16] {
            all.push(Matrix::Stored(values.as_dtype(dtype).unwrap()));
        }
        for (mode, bits) in [
            (QuantizationMode::Affine, Some(3)),
            (QuantizationMode::Affine, Some(4)),
            (QuantizationMode::Mxfp4, None),
        ] {
            let quantization = Quantization::new(mode, bits, None).unwrap();
            let matrix = QuantizedMatrix::quantize(&values, quantization).unwrap();
            all.push(Matrix::Quantized(matrix));
        }
        for (i, matrix) in all.iter().enumerate() {
            let expected = matrix.float32().unwrap();
            let expected = expected.try_as_slice::<f32>().unwrap();
            let stored = StoredNumbers::of(matrix).unwrap();
            let numbers = stored.numbers().unwrap();
            assert_eq!(numbers.len(), expected.len(), "{i}");
            let mut found = vec![0.0; expected.len()];
            for (block, out) in found.chunks_mut(BLOCK).enumerate() {
                numbers.read(block * BLOCK, out);
            }
            assert_eq!(found, expected, "{i}");
        }
    }
}
