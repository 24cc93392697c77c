//! The difference of two tensors, number by number, and its bound.

use crate::{convert::source::Precision, mlx::Dtype};

/// The bound of the difference between result and source.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Bound {
    /// Bit-identical.
    Exact,
    /// One rounding to the type.
    Rounded(Dtype),
    /// Finite if the source is.
    Finite,
}

impl Bound {
    /// The bound for a tensor with these precisions in the source and the result.
    pub(super) fn of(source: Precision, result: Precision) -> Self {
        match (source, result) {
            (one, other) if one == other && !matches!(one, Precision::Blocks(_)) => Self::Exact,
            (_, Precision::Float(Dtype::Float32)) => Self::Exact,
            (_, Precision::Float(dtype)) => Self::Rounded(dtype),
            _ => Self::Finite,
        }
    }

    fn holds(self, source: f32, result: f32) -> bool {
        // Half a unit in the last place, and half the smallest number.
        let (relative, absolute) = match self {
            Self::Exact => return source.to_bits() == result.to_bits(),
            Self::Finite => return result.is_finite() || !source.is_finite(),
            Self::Rounded(Dtype::Bfloat16) => (f32::EPSILON * 32_768.0, f32::MIN_POSITIVE),
            Self::Rounded(Dtype::Float16) => (f32::EPSILON * 4_096.0, 2.0_f32.powi(-25)),
            Self::Rounded(Dtype::Float32) => (f32::EPSILON / 2.0, f32::MIN_POSITIVE),
        };
        (result - source).abs() <= source.abs() * relative + absolute
            || source.to_bits() == result.to_bits()
            || (source.is_nan() && result.is_nan())
    }
}

/// The difference of two tensors.
#[derive(Default)]
pub(super) struct Difference {
    squares: f64,
    source_squares: f64,
    /// The largest absolute difference.
    pub(super) max: f32,
    /// The first pair that exceeds the bound: source, result.
    pub(super) outside: Option<(f32, f32)>,
}

impl Difference {
    /// Compares two tensors of the same shape.
    pub(super) fn between(source: &[f32], result: &[f32], bound: Bound) -> Self {
        let mut difference = Self::default();
        // The common case, limited only by memory bandwidth.
        if source.len() == result.len() && bits_equal(source, result) {
            return difference;
        }
        for (source, result) in source.chunks(1024).zip(result.chunks(1024)) {
            let (mut squares, mut source_squares, mut max) = (0.0f32, 0.0f32, 0.0f32);
            for (&a, &b) in source.iter().zip(result) {
                squares += (b - a) * (b - a);
                source_squares += a * a;
                max = max.max((b - a).abs());
            }
            difference.squares += f64::from(squares);
            difference.source_squares += f64::from(source_squares);
            difference.max = difference.max.max(max);
            let mut pairs = source.iter().zip(result);
            if difference.outside.is_none()
                && let Some((&a, &b)) = pairs.find(|(a, b)| !bound.holds(**a, **b))
            {
                difference.outside = Some((a, b));
            }
        }
        difference
    }

    /// Norm of the difference divided by the norm of the source.
    pub(super) fn relative_error(&self) -> f64 {
        (self.squares / self.source_squares).sqrt()
    }
}

fn bits_equal(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| a.to_bits() == b.to_bits())
}

#[cfg(test)]
mod tests {
    use super::*;
    use half::{bf16, f16};

    #[test]
    fn accepts_one_rounding() {
        let bounds = [
            Bound::Rounded(Dtype::Bfloat16),
            Bound::Rounded(Dtype::Float16),
        ];
        let mut x = 1e-6f32;
        while x < 6e4 {
            let rounded = [bf16::from_f32(x).to_f32(), f16::from_f32(x).to_f32()];
            for (bound, rounded) in bounds.into_iter().zip(rounded) {
                assert!(bound.holds(x, rounded), "{bound:?} {x} {rounded}");
                assert!(bound.holds(-x, -rounded), "{bound:?} {x} {rounded}");
            }
            // Two units exceed one rounding.
            let bits = bf16::from_f32(x).to_bits();
            assert!(
                !bounds[0].holds(x, bf16::from_bits(bits + 2).to_f32()),
                "{x}"
            );
            x *= 1.37;
        }
        assert!(!bounds[1].holds(1e5, f32::INFINITY));
        assert!(Bound::Exact.holds(0.0, 0.0) && !Bound::Exact.holds(0.0, -0.0));
        assert!(!Bound::Finite.holds(1.0, f32::NAN));
    }

    #[test]
    fn differences_are_summed() {
        let source: Vec<f32> = vec![2.0; 3000];
        let mut result = source.clone();
        result[2999] = 5.0;
        let difference = Difference::between(&source, &result, Bound::Exact);
        assert_eq!(difference.squares, 9.0);
        assert_eq!(
            difference.source_squares,
            12_000.0 - 4.0 * 2048.0 + 4.0 * 2048.0
        );
        assert_eq!(
            (difference.max, difference.outside),
            (3.0, Some((2.0, 5.0)))
        );
        let same = Difference::between(&source, &source, Bound::Exact);
        assert_eq!((same.max, same.outside), (0.0, None));
    }
}
