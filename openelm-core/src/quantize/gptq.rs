//! GPTQ (arXiv 2210.17323) onto MLX's affine grid.
//!
//! The columns are quantised from left to right. The error of a column, divided by its element of
//! the diagonal of `U` (`H⁻¹ = Uᵀ U`), times the rest of its row of `U`, is subtracted from the
//! columns after it. A group's scale and bias are fitted when its first column is reached, to the
//! values as they are then, with the weights `1 / U_kk²` of the paper's error.

use mlx_rs::{
    Array,
    ops::{indexing::TryIndexOp, matmul},
};

use super::{affine_grid::AffineGrid, packed_codes::Codes};
use crate::{
    error::Result,
    mlx::{Dtype, Quantization, QuantizedMatrix, evaluation},
    parallel,
};

/// Rows that one thread quantises at a time.
const ROWS: usize = 64;

/// Quantises the matrix `weight` f32 `[rows, width]` with the `factor` `U` `[width, width]` of its
/// Hessian. Scales and biases have the type `dtype`.
pub(super) fn gptq(
    weight: &Array,
    factor: &Array,
    quantization: Quantization,
    dtype: Dtype,
) -> Result<QuantizedMatrix> {
    let (rows, width) = (weight.dim(0) as usize, weight.dim(1) as usize);
    let size = quantization.group_size();
    let grid = AffineGrid::new(quantization, dtype);
    let mut codes = Codes::new(rows, width, size);
    // The columns that are not quantised yet.
    let mut rest = weight.clone();
    for group in 0..width / size {
        let (start, end) = ((group * size) as i32, ((group + 1) * size) as i32);
        let columns = values(&rest.try_index((.., ..size as i32))?)?;
        let block = values(&factor.try_index((start..end, start..end))?)?;
        let chunks: Vec<&[f32]> = columns.chunks(ROWS * size).collect();
        let done = parallel::map(&chunks, |chunk| {
            Ok(quantize_rows(grid, chunk, &block, size))
        })?;
        let mut errors = Vec::with_capacity(columns.len());
        for (row, quantized) in done.into_iter().flatten().enumerate() {
            let at = row * width + group * size;
            codes.codes[at..at + size].copy_from_slice(&quantized.codes);
            codes.scales[row * (width / size) + group] = quantized.scale;
            codes.biases[row * (width / size) + group] = quantized.bias;
            errors.extend(quantized.errors);
        }
        if (end as usize) < width {
            let errors = Array::from_slice(&errors, &[rows as i32, size as i32]);
            let change = matmul(&errors, factor.try_index((start..end, end..))?)?;
            rest = rest.try_index((.., size as i32..))?.subtract(change)?;
            evaluation::complete([&rest])?;
        }
    }
    codes.pack(quantization, dtype)
}

/// A group of a row.
struct QuantizedGroup {
    codes: Vec<u8>,
    scale: f32,
    bias: f32,
    /// Error of each column, divided by its element of the diagonal.
    errors: Vec<f32>,
}

/// Quantises `rows` of `size` columns, whose part of the factor is `block` `[size, size]`.
fn quantize_rows(
    grid: AffineGrid,
    rows: &[f32],
    block: &[f32],
    size: usize,
) -> Vec<QuantizedGroup> {
    let diagonal: Vec<f32> = (0..size).map(|k| block[k * size + k]).collect();
    let weights: Vec<f32> = diagonal.iter().map(|d| 1.0 / (d * d)).collect();
    let mut quantized = Vec::with_capacity(rows.len() / size);
    let mut values = vec![0.0; size];
    for row in rows.chunks_exact(size) {
        values.copy_from_slice(row);
        let group = grid.fit(&values, &weights);
        let mut codes = vec![0; size];
        let mut errors = vec![0.0; size];
        for k in 0..size {
            let q = grid.nearest(group, values[k]);
            codes[k] = q as u8;
            let error = (values[k] - (q * group.scale + group.bias)) / diagonal[k];
            errors[k] = error;
            let factors = &block[k * size + k + 1..(k + 1) * size];
            for (value, factor) in values[k + 1..].iter_mut().zip(factors) {
                *value -= error * factor;
            }
        }
        quantized.push(QuantizedGroup {
            codes,
            scale: group.scale,
            bias: group.bias,
            errors,
        });
    }
    quantized
}

fn values(array: &Array) -> Result<Vec<f32>> {
    Ok(array.contiguous()?.to_vec_exact::<f32>()?)
}

#[cfg(test)]
mod tests {
    use super::{super::hessian::Hessian, *};
    use crate::mlx::QuantizationMode;

    #[test]
    fn output_error_is_far_below_that_of_rounding() {
        let random = |seed: u64, shape: &[i32]| {
            let key = mlx_rs::random::key(seed).unwrap();
            mlx_rs::random::normal::<f32>(shape, None, None, &key).unwrap()
        };
        let weight = random(1, &[48, 128]);
        // Inputs of few directions, as activations are.
        let x = matmul(random(2, &[400, 24]), random(3, &[24, 128])).unwrap();
        let x = x
            .add(
                random(4, &[400, 128])
                    .multiply(Array::from_f32(0.3))
                    .unwrap(),
            )
            .unwrap();
        let mut hessian = Hessian::new(128).unwrap();
        hessian.add(&x).unwrap();
        let factor = hessian.inverse_factor(0.01, "m").unwrap();
        let error = |matrix: QuantizedMatrix| {
            let found = matrix.expand(Dtype::Float32).unwrap();
            let change = matmul(&x, found.subtract(&weight).unwrap().t()).unwrap();
            let sum = change.square().unwrap().sum(None).unwrap();
            sum.item_exact::<f32>()
        };
        for (bits, most) in [(2, 0.3), (3, 0.3), (4, 0.3), (8, 0.5)] {
            let affine = Quantization::new(QuantizationMode::Affine, Some(bits), None).unwrap();
            let found = gptq(&weight, &factor, affine, Dtype::Float32).unwrap();
            assert_eq!(found.weight.shape(), [48, (128 * bits / 32) as i32]);
            let ratio = error(found) / error(QuantizedMatrix::quantize(&weight, affine).unwrap());
            assert!(ratio < most, "{bits} bits: {ratio}");
        }
    }
}
