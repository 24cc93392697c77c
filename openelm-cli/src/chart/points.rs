//! Points of a curve: finite points, axis ranges, running mean.

use std::ops::Range;

/// Maximum number of points drawn per series.
const MAX_DRAWN: usize = 2000;
/// Half-life of the running mean, as a fraction of the points.
const HALF_LIFE: f64 = 0.02;
/// The largest integer range that `f64` represents exactly.
pub(super) const MAX_ITERATION: u64 = 1 << 53;

/// The finite points, by increasing iteration.
pub(super) fn drawable(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let can_place =
        |&&(at, loss): &&(u64, f64)| at <= MAX_ITERATION && loss.abs() <= f64::from(f32::MAX);
    let mut points: Vec<_> = points.iter().filter(can_place).copied().collect();
    points.sort_by_key(|&(at, _)| at);
    points
}

/// The ranges of the two axes, never empty; `None` without points.
pub(super) fn ranges(
    train: &[(u64, f64)],
    valid: &[(u64, f64)],
) -> Option<(Range<u64>, Range<f64>)> {
    let points = || train.iter().chain(valid);
    let (first, last) = (points().map(|p| p.0).min()?, points().map(|p| p.0).max()?);
    let low = points().map(|p| p.1).fold(f64::INFINITY, f64::min);
    let high = points().map(|p| p.1).fold(f64::NEG_INFINITY, f64::max);

    let iterations = if first == last {
        first.saturating_sub(1)..last + 1
    } else if first <= last / 20 {
        0..last
    } else {
        first..last
    };
    let size = low.abs().max(high.abs());
    let span = high - low;
    // Curves that differ only by rounding are drawn flat.
    let pad = if span > size * 1e-6 {
        span * 0.05
    } else {
        size * 0.05
    }
    .max(1e-6);
    Some((iterations, low - pad..high + pad))
}

/// The exponential mean up to each point, with weights normalised over the points so far, so that
/// the first values are not biased towards zero.
pub(super) fn running_mean(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    let decay = 0.5_f64.powf(1.0 / (points.len() as f64 * HALF_LIFE).max(1.0));
    let (mut sum, mut weight) = (0.0, 0.0);
    let step = |&(at, loss): &(u64, f64)| {
        sum = sum * decay + loss;
        weight = weight * decay + 1.0;
        (at, sum / weight)
    };
    points.iter().map(step).collect()
}

/// At most [`MAX_DRAWN`] points: the first, last, lowest and highest of each interval, so that
/// spikes are kept.
pub(super) fn thin(points: &[(u64, f64)]) -> Vec<(u64, f64)> {
    if points.len() <= MAX_DRAWN {
        return points.to_vec();
    }
    let mut kept = Vec::with_capacity(MAX_DRAWN);
    for stretch in points.chunks(points.len().div_ceil(MAX_DRAWN / 4)) {
        let by_loss = |a: &(usize, &(u64, f64)), b: &(usize, &(u64, f64))| a.1.1.total_cmp(&b.1.1);
        let low = stretch
            .iter()
            .enumerate()
            .min_by(by_loss)
            .map_or(0, |(i, _)| i);
        let high = stretch
            .iter()
            .enumerate()
            .max_by(by_loss)
            .map_or(0, |(i, _)| i);
        let mut picks = [0, low, high, stretch.len() - 1];
        picks.sort_unstable();
        let mut last = None;
        for pick in picks {
            if last.replace(pick) != Some(pick) {
                kept.extend(stretch.get(pick).copied());
            }
        }
    }
    kept
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Deterministic noise in [-0.5, 0.5].
    pub(in crate::chart) fn noise(i: u64) -> f64 {
        let mixed = i.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        ((mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9) >> 40) as f64 / 1.7e7 - 0.5
    }

    #[test]
    fn thinning_keeps_ends_and_spikes() {
        let mut points: Vec<_> = (0..300_000).map(|i| (i, noise(i))).collect();
        points[123_456].1 = 50.0;
        points[234_567].1 = -50.0;
        let kept = thin(&points);
        assert!((1500..=MAX_DRAWN).contains(&kept.len()), "{}", kept.len());
        assert!(kept.is_sorted_by(|a, b| a.0 < b.0));
        assert_eq!((kept.first(), kept.last()), (points.first(), points.last()));
        assert!(kept.contains(&(123_456, 50.0)) && kept.contains(&(234_567, -50.0)));
        assert_eq!(thin(&points[..2000]), points[..2000]);
        // The length at which the last interval holds one point.
        assert!(thin(&points[..2001]).len() <= MAX_DRAWN);
    }

    #[test]
    fn running_mean_spans_a_fiftieth_of_the_points() {
        // 100 points: a half-life of 2 points, so weights 1, 2^-0.5, 2^-1, ...
        let mut points: Vec<_> = (0..100).map(|i| (i, 0.0)).collect();
        points[0].1 = 4.0;
        let mean = running_mean(&points);
        assert_eq!(mean[0], (0, 4.0));
        // 4 * 0.5 / (1 + 0.70710678 + 0.5)
        assert!((mean[2].1 - 0.906_163).abs() < 1e-6, "{:?}", mean[2]);
        assert!(mean[99].1 < 1e-14);
    }
}
