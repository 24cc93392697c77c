//! The difference of two tensors, number by number, and its bound.

use std::{num::NonZero, ops::Range, thread};

use half::{bf16, f16};

use super::stored_numbers::{BLOCK, Numbers};
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
#[derive(Debug)]
pub(super) struct Difference {
    squares: f64,
    source_squares: f64,
    /// The largest absolute difference.
    pub(super) max: f32,
    /// The first pair that exceeds the bound: source, result.
    pub(super) outside: Option<(f32, f32)>,
    /// True if the result is the quantised source, bit for bit.
    pub(super) is_quantized: bool,
}

impl Difference {
    /// Compares two tensors of the same number of elements, in blocks, on all cores. With `from`, it
    /// is checked that the result is the affine quantisation of the source in this type.
    pub(super) fn between(
        source: Numbers<'_>,
        result: Numbers<'_>,
        bound: Bound,
        from: Option<Dtype>,
    ) -> Self {
        let length = source.len().min(result.len());
        let threads = thread::available_parallelism().map_or(1, NonZero::get);
        let share = length.div_ceil(BLOCK).div_ceil(threads).max(1) * BLOCK;
        let starts = (0..length).step_by(share);
        let part = |start: usize| {
            let end = (start + share).min(length);
            let mut difference = Self::of_nothing(from.is_some());
            difference.add_range(source, result, bound, from, start..end);
            difference
        };
        let nothing = || Self::of_nothing(from.is_some());
        if length <= share {
            return starts.map(part).fold(nothing(), Self::joined);
        }
        thread::scope(|scope| {
            let parts: Vec<_> = starts
                .map(|start| scope.spawn(move || part(start)))
                .collect();
            let parts = parts.into_iter().map(|part| match part.join() {
                Ok(difference) => difference,
                Err(panic) => std::panic::resume_unwind(panic),
            });
            parts.fold(nothing(), Self::joined)
        })
    }

    /// The difference of empty tensors.
    fn of_nothing(is_quantized: bool) -> Self {
        Self {
            squares: 0.0,
            source_squares: 0.0,
            max: 0.0,
            outside: None,
            is_quantized,
        }
    }

    /// Adds the numbers of `range`, which begins at a block.
    fn add_range(
        &mut self,
        source: Numbers<'_>,
        result: Numbers<'_>,
        bound: Bound,
        from: Option<Dtype>,
        range: Range<usize>,
    ) {
        let (mut one, mut other, mut rounded) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
        for start in range.clone().step_by(BLOCK) {
            let length = BLOCK.min(range.end - start);
            let (one, other) = (&mut one[..length], &mut other[..length]);
            source.read(start, one);
            match from {
                None => result.read(start, other),
                Some(dtype) => {
                    let is_rounded = source.dtype() == dtype || dtype == Dtype::Float32;
                    let values = if is_rounded {
                        &*one
                    } else {
                        round(one, dtype, &mut rounded[..length])
                    };
                    self.is_quantized &= result.read_quantized(start, values, dtype, other);
                }
            }
            for (source, result) in one.chunks(CHUNK).zip(other.chunks(CHUNK)) {
                self.add(source, result, bound);
            }
        }
    }

    /// Adds the pairs of a chunk, whose sums are exact enough in f32.
    fn add(&mut self, source: &[f32], result: &[f32], bound: Bound) {
        let squares = |sum: f32, a: f32, _| sum + a * a;
        self.source_squares += f64::from(folded(source, result, squares).iter().sum::<f32>());
        // The common case of a copy.
        if bits_equal(source, result) {
            return;
        }
        let squares = |sum: f32, a: f32, b: f32| sum + (b - a) * (b - a);
        let squares = folded(source, result, squares).iter().sum::<f32>();
        self.squares += f64::from(squares);
        // `f32::max` takes several times as long.
        let larger = |one: f32, other: f32| if other > one { other } else { one };
        let max = folded(source, result, |max, a, b| larger(max, (b - a).abs()));
        self.max = max.into_iter().fold(self.max, f32::max);
        // A finite sum has finite terms.
        let holds = bound == Bound::Finite && squares.is_finite();
        let mut pairs = source.iter().zip(result);
        if self.outside.is_none()
            && !holds
            && let Some((&a, &b)) = pairs.find(|(a, b)| !bound.holds(**a, **b))
        {
            self.outside = Some((a, b));
        }
    }

    /// The difference of two parts, the first of which comes first in the tensor.
    fn joined(self, next: Self) -> Self {
        Self {
            squares: self.squares + next.squares,
            source_squares: self.source_squares + next.source_squares,
            max: self.max.max(next.max),
            outside: self.outside.or(next.outside),
            is_quantized: self.is_quantized && next.is_quantized,
        }
    }

    /// Norm of the difference divided by the norm of the source.
    pub(super) fn relative_error(&self) -> f64 {
        (self.squares / self.source_squares).sqrt()
    }
}

/// `values` in `dtype`, written to `rounded`.
fn round<'r>(values: &[f32], dtype: Dtype, rounded: &'r mut [f32]) -> &'r [f32] {
    for (rounded, &value) in rounded.iter_mut().zip(values) {
        *rounded = match dtype {
            Dtype::Float32 => value,
            Dtype::Float16 => f16::from_f32(value).to_f32(),
            Dtype::Bfloat16 => bf16::from_f32(value).to_f32(),
        };
    }
    rounded
}

/// Numbers whose squares are summed in f32.
const CHUNK: usize = 1024;

/// `fold` over the pairs, in several results, which the compiler keeps in one register.
fn folded(source: &[f32], result: &[f32], fold: impl Fn(f32, f32, f32) -> f32) -> [f32; 8] {
    let mut folded = [0.0; 8];
    let (ones, one_rest) = source.as_chunks::<8>();
    let (others, other_rest) = result.as_chunks::<8>();
    for (one, other) in ones.iter().zip(others) {
        for ((folded, &a), &b) in folded.iter_mut().zip(one).zip(other) {
            *folded = fold(*folded, a, b);
        }
    }
    for ((folded, &a), &b) in folded.iter_mut().zip(one_rest).zip(other_rest) {
        *folded = fold(*folded, a, b);
    }
    folded
}

fn bits_equal(a: &[f32], b: &[f32]) -> bool {
    let differing = |bits, (a, b): (&f32, &f32)| bits | (a.to_bits() ^ b.to_bits());
    a.iter().zip(b).fold(0, differing) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let source: Vec<f32> = vec![2.0; 3 * BLOCK + 77];
        let mut result = source.clone();
        let last = result.len() - 1;
        (result[last], result[BLOCK + 5]) = (5.0, 4.0);
        let between = |source, result| {
            Difference::between(
                Numbers::Float32(source),
                Numbers::Float32(result),
                Bound::Exact,
                None,
            )
        };
        let difference = between(&source, &result);
        assert_eq!(difference.squares, 13.0);
        assert_eq!(difference.source_squares, 4.0 * source.len() as f64);
        assert_eq!(
            (difference.max, difference.outside),
            (3.0, Some((2.0, 4.0)))
        );
        let same = between(&source, &source);
        assert_eq!((same.max, same.outside), (0.0, None));
    }
}
