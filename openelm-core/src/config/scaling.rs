//! Layer-wise scaling: per-layer multipliers to whole heads and FFN widths.
//!
//! OpenELM, <https://arxiv.org/abs/2404.14619>, gives layer `i` of `N` the multipliers
//! `alpha_i = alpha_min + (alpha_max - alpha_min) * i / (N - 1)` and `beta_i` alike, then
//! `alpha_i * D / head_dim` heads and an FFN of `beta_i * D`. The released models are reproduced
//! only with the rounding of CoreNet's `general_gpt.py` (the same in Hugging Face's
//! `configuration_openelm.py`): multipliers to two decimals, then widths to the nearest multiple
//! of a divisor.

/// Widths of the layers relative to `model_dim`.
#[derive(Clone, Debug, PartialEq)]
pub enum Multipliers {
    /// The same multiplier in every layer, not rounded.
    Uniform(f64),
    /// Linear from the first layer's to the last layer's multiplier, rounded to two decimals.
    Range(f64, f64),
    /// One multiplier per layer, not rounded.
    PerLayer(Vec<f64>),
}

impl Multipliers {
    /// The multiplier of each of `layers` layers.
    ///
    /// A [`PerLayer`](Self::PerLayer) list is returned as it is, whatever its length. A single
    /// layer takes the first value of a [`Range`](Self::Range).
    pub fn per_layer(&self, layers: usize) -> Vec<f64> {
        match self {
            Self::Uniform(multiplier) => vec![*multiplier; layers],
            Self::Range(first, last) => line(*first, *last, layers).map(round2).collect(),
            Self::PerLayer(multipliers) => multipliers.clone(),
        }
    }
}

/// Rounds to two decimals, as NumPy does.
///
/// The references call Python's `round` on NumPy's numbers, which scales by 100, rounds halves to
/// even and scales back; on plain Python numbers `round` uses the exact decimal instead (2.675
/// gives 2.68 with NumPy and 2.67 with Python).
pub(crate) fn round2(value: f64) -> f64 {
    (value * 100.0).round_ties_even() / 100.0
}

/// The multiple of `divisor` nearest to `value`, at least one `divisor`, and one more if rounding
/// down loses over 10 %.
pub(crate) fn make_divisible(value: f64, divisor: usize) -> usize {
    let divisor = divisor.max(1);
    // The conversion drops the fraction and clamps, so no input overflows.
    let nearest = (value + divisor as f64 / 2.0) as usize / divisor * divisor;
    let rounded = nearest.max(divisor);
    if (rounded as f64) < 0.9 * value {
        return rounded.saturating_add(divisor);
    }
    rounded
}

/// Query heads of a layer whose width is `multiplier` times `model_dim`.
///
/// The count is a multiple of `num_gqa_groups`, the number of query heads per KV head, or of 2
/// without one.
pub(crate) fn query_heads(
    model_dim: usize,
    head_dim: usize,
    num_gqa_groups: Option<usize>,
    multiplier: f64,
) -> usize {
    let divisor = head_dim.saturating_mul(num_gqa_groups.unwrap_or(2));
    make_divisible(model_dim as f64 * multiplier, divisor) / head_dim.max(1)
}

/// KV heads for `query_heads` query heads; without `num_gqa_groups`, the same number.
pub(crate) fn kv_heads(query_heads: usize, num_gqa_groups: Option<usize>) -> usize {
    query_heads / num_gqa_groups.unwrap_or(1).max(1)
}

/// Inner width of a layer's FFN: `multiplier` times `model_dim` in whole `ffn_dim_divisor`s.
pub(crate) fn ffn_dim(model_dim: usize, ffn_dim_divisor: usize, multiplier: f64) -> usize {
    make_divisible(multiplier * model_dim as f64, ffn_dim_divisor)
}

/// `count` values from `first` to `last` at equal distances, in the order of operations of NumPy's
/// `linspace`, which decides the rounding of ties.
fn line(first: f64, last: f64, count: usize) -> impl Iterator<Item = f64> {
    let end = count.saturating_sub(1);
    let step = (last - first) / end.max(1) as f64;
    (0..count).map(move |i| {
        if i > 0 && i == end {
            last
        } else {
            i as f64 * step + first
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_decimals_round_as_numpy_does() {
        // Every expected value is `round(numpy.float64(x), 2)`.
        for (value, rounded) in [
            (2.675, 2.68),
            (1.115, 1.12),
            (0.615, 0.62),
            (0.285, 0.28),
            (0.145, 0.14),
            (1.005, 1.0),
            (0.125, 0.12),
            (0.375, 0.38),
            (-0.125, -0.12),
            (0.5666666666666667, 0.57),
            (4.0, 4.0),
        ] {
            assert_eq!(round2(value), rounded, "{value}");
        }
    }

    #[test]
    fn widths_round_to_nearest_multiple_within_a_tenth() {
        assert_eq!(make_divisible(640.0, 256), 768, "halves go up");
        assert_eq!(make_divisible(639.9, 256), 768, "512 would lose 20 %");
        assert_eq!(make_divisible(569.0, 256), 768, "512 would lose 10.02 %");
        assert_eq!(make_divisible(568.0, 256), 512, "512 loses 9.9 %");
        assert_eq!(make_divisible(1.0, 256), 256, "never under one divisor");
        assert_eq!(make_divisible(256.0, 256), 256);
        // OpenELM-270M, layer 5: 768 is nearest to 857.6 and 10.4 % under it.
        assert_eq!(make_divisible(857.6, 256), 1024);
        assert_eq!(query_heads(1280, 64, Some(4), 0.67), 16);
    }

    #[test]
    fn invalid_widths_neither_overflow_nor_divide_by_zero() {
        assert_eq!(make_divisible(f64::NAN, 8), 8);
        assert_eq!(make_divisible(-5.0, 8), 8);
        assert_eq!(make_divisible(10.0, 0), 10);
        assert!(make_divisible(f64::INFINITY, 8) >= usize::MAX - 8);
        assert_eq!(query_heads(8, 0, Some(0), 1.0), 8);
        assert_eq!(kv_heads(8, Some(0)), 8);
        assert_eq!(query_heads(usize::MAX, usize::MAX, Some(9), 1.0), 1);
    }

    #[test]
    fn ranges_include_both_ends() {
        assert_eq!(
            Multipliers::Range(0.5, 1.0).per_layer(4),
            [0.5, 0.67, 0.83, 1.0]
        );
        assert_eq!(Multipliers::Range(4.0, 0.5).per_layer(3), [4.0, 2.25, 0.5]);
        assert_eq!(Multipliers::Range(0.3, 0.3).per_layer(3), [0.3; 3]);
        assert_eq!(Multipliers::Range(0.25, 0.5).per_layer(2), [0.25, 0.5]);
        assert_eq!(Multipliers::Range(0.25, 0.5).per_layer(1), [0.25]);
        assert!(Multipliers::Range(0.25, 0.5).per_layer(0).is_empty());
    }

    #[test]
    fn only_ranges_are_rounded() {
        assert_eq!(Multipliers::Uniform(0.123).per_layer(2), [0.123, 0.123]);
        assert_eq!(
            Multipliers::PerLayer(vec![0.123, 0.456]).per_layer(9),
            [0.123, 0.456]
        );
        assert_eq!(Multipliers::Range(0.123, 0.456).per_layer(2), [0.12, 0.46]);
    }

    #[test]
    fn heads_are_multiples_of_groups() {
        assert_eq!(query_heads(2048, 64, Some(1), 0.51), 16);
        assert_eq!(query_heads(2048, 64, Some(4), 0.56), 20);
        assert_eq!(query_heads(2048, 64, None, 0.51), 16);
        assert_eq!(query_heads(2048, 64, None, 0.55), 18);
        assert_eq!(kv_heads(20, Some(4)), 5);
        assert_eq!(kv_heads(18, None), 18);
    }

    #[test]
    fn ffn_widths_are_multiples_of_the_divisor() {
        assert_eq!(ffn_dim(1280, 256, 0.5), 768);
        assert_eq!(ffn_dim(2048, 256, 2.31), 4608);
        assert_eq!(ffn_dim(128, 256, 0.25), 256);
    }
}
