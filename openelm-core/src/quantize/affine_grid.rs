//! The grid of an affine group: the numbers `scale · q + bias` for `q` from 0 to `2^bits - 1`.

use half::{bf16, f16};

use crate::mlx::{Dtype, Quantization};

/// Shares of the range of a group that are tried as the range of its grid.
const SHARES: [f32; 13] = [
    1.0, 0.95, 0.9, 0.85, 0.8, 0.75, 0.7, 0.65, 0.6, 0.55, 0.5, 0.45, 0.4,
];
/// Smallest scale, as in MLX.
const SMALLEST: f32 = 1e-7;

/// The grids of one bit width, whose scales and biases have one type.
#[derive(Debug, Clone, Copy)]
pub(super) struct AffineGrid {
    /// The largest `q`.
    levels: f32,
    dtype: Dtype,
}

/// Scale and bias of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Group {
    pub(super) scale: f32,
    pub(super) bias: f32,
}

impl AffineGrid {
    pub(super) fn new(quantization: Quantization, dtype: Dtype) -> Self {
        Self {
            levels: ((1_u32 << quantization.bits()) - 1) as f32,
            dtype,
        }
    }

    /// The `q` of the number of the grid that is nearest to `value`.
    #[inline]
    pub(super) fn nearest(self, group: Group, value: f32) -> f32 {
        // Adding and subtracting 1.5 · 2^23 rounds to an integer.
        const ROUND: f32 = 12_582_912.0;
        let q = (value - group.bias) / group.scale;
        (q.clamp(0.0, self.levels) + ROUND) - ROUND
    }

    /// The group whose grid has a small error for `values`, `Σ weights · (value - nearest)²`: the
    /// best of several ranges, each with scale and bias by least squares.
    pub(super) fn fit(self, values: &[f32], weights: &[f32]) -> Group {
        let (low, high) = range(values);
        let mut best = self.over(low, high);
        if high - low < SMALLEST {
            return best;
        }
        let mut least = self.error(best, values, weights);
        for share in SHARES {
            let start = self.over(low * share, high * share);
            for group in [start, self.least_squares(start, values, weights)] {
                let error = self.error(group, values, weights);
                if error < least {
                    (best, least) = (group, error);
                }
            }
        }
        best
    }

    /// The grid from `low` to `high`.
    fn over(self, low: f32, high: f32) -> Group {
        self.rounded((high - low) / self.levels, low)
    }

    fn rounded(self, scale: f32, bias: f32) -> Group {
        let round = |x: f32| match self.dtype {
            Dtype::Float32 => x,
            Dtype::Float16 => f16::from_f32(x).to_f32(),
            Dtype::Bfloat16 => bf16::from_f32(x).to_f32(),
        };
        let scale = round(scale);
        Group {
            scale: if scale.abs() < SMALLEST {
                round(SMALLEST)
            } else {
                scale
            },
            bias: round(bias),
        }
    }

    fn error(self, group: Group, values: &[f32], weights: &[f32]) -> f32 {
        let pairs = values.iter().zip(weights);
        pairs.fold(0.0, |sum, (&value, &weight)| {
            let found = self.nearest(group, value) * group.scale + group.bias;
            sum + weight * (value - found) * (value - found)
        })
    }

    /// Scale and bias with the least error for the `q` of `group`.
    fn least_squares(self, group: Group, values: &[f32], weights: &[f32]) -> Group {
        let [mut sw, mut sq, mut sqq, mut sv, mut sqv] = [0.0_f32; 5];
        for (&value, &weight) in values.iter().zip(weights) {
            let q = self.nearest(group, value);
            sw += weight;
            sq += weight * q;
            sqq += weight * q * q;
            sv += weight * value;
            sqv += weight * q * value;
        }
        let determinant = sw * sqq - sq * sq;
        let scale = (sw * sqv - sq * sv) / determinant;
        let bias = (sv - scale * sq) / sw;
        if scale.is_finite() && bias.is_finite() {
            self.rounded(scale, bias)
        } else {
            group
        }
    }
}

fn range(values: &[f32]) -> (f32, f32) {
    let start = (f32::INFINITY, f32::NEG_INFINITY);
    values
        .iter()
        .fold(start, |(low, high), &x| (low.min(x), high.max(x)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::QuantizationMode;

    fn grid(bits: usize, dtype: Dtype) -> AffineGrid {
        let affine = Quantization::new(QuantizationMode::Affine, Some(bits), None);
        AffineGrid::new(affine.unwrap(), dtype)
    }

    #[test]
    fn numbers_of_a_grid_are_kept() {
        let grid = grid(2, Dtype::Float32);
        let values = [-1.0, 0.5, 2.0, 3.5];
        let group = grid.fit(&values, &[1.0; 4]);
        assert_eq!((group.scale, group.bias), (1.5, -1.0));
        for (q, value) in values.into_iter().enumerate() {
            assert_eq!(grid.nearest(group, value), q as f32);
        }
        assert_eq!(grid.nearest(group, 99.0), 3.0);
        assert_eq!(grid.nearest(group, -99.0), 0.0);
    }

    #[test]
    fn weights_choose_the_numbers_that_matter() {
        let grid = grid(2, Dtype::Float32);
        // An outlier that hardly counts does not widen the grid.
        let mut values = vec![0.75];
        values.extend((0..32).map(|i| (i % 4) as f32 * 0.1));
        let mut weights = vec![1.0; 33];
        let wide = grid.fit(&values, &weights);
        weights[0] = 1e-9;
        let narrow = grid.fit(&values, &weights);
        assert!(wide.scale > 0.2, "{wide:?}");
        assert!((narrow.scale - 0.1).abs() < 1e-6, "{narrow:?}");
    }

    #[test]
    fn constant_groups_are_exact() {
        for dtype in [Dtype::Float32, Dtype::Bfloat16] {
            let grid = grid(4, dtype);
            let group = grid.fit(&[0.5; 64], &[1.0; 64]);
            assert_eq!(grid.nearest(group, 0.5) * group.scale + group.bias, 0.5);
        }
    }
}
