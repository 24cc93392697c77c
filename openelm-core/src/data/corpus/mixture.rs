//! The order of the groups of a mixture.

/// The golden ratio's fraction, times 2^64.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// The list of files that each sequence comes from, by the weights of the lists.
///
/// The sequence `n` is of the list whose part of the interval [0, 1), divided by the weights,
/// contains the fraction of `n·φ` (the golden ratio). These fractions are the additive sequence of
/// lowest discrepancy, also over every `k`-th `n`: each part of the corpus, and the share of each
/// process, has the mixture of the whole.
pub(crate) struct Mixture {
    /// Ends of the lists' parts, times 2^64, without the last.
    ends: Vec<u64>,
}

impl Mixture {
    /// A mixture by `weights`, or of one list.
    pub(crate) fn new(weights: Option<&[f64]>) -> Self {
        let weights = weights.unwrap_or_default();
        let total: f64 = weights.iter().sum();
        let mut sum = 0.0;
        let ends = weights.iter().map(|weight| {
            sum += weight / total;
            // Saturates at the end of the interval.
            (sum * 2_f64.powi(64)) as u64
        });
        let mut ends: Vec<u64> = ends.collect();
        ends.pop();
        Self { ends }
    }

    /// The list of the sequence `number`.
    pub(crate) fn list(&self, number: u64) -> usize {
        let place = number.wrapping_mul(STEP);
        self.ends.partition_point(|&end| end <= place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_part_has_the_mixture_of_the_whole() {
        let weights = [0.5, 3.0, 0.25, 6.25];
        let mixture = Mixture::new(Some(&weights));
        for step in [1, 2, 3, 16, 512] {
            for first in [0, 1, 77, 1 << 40] {
                let mut drawn = [0_u32; 4];
                for nth in 1..=20_000_u64 {
                    drawn[mixture.list(first + (nth - 1) * step)] += 1;
                    for (drawn, weight) in drawn.iter().zip(weights) {
                        let expected = nth as f64 * weight / 10.0;
                        let off = (f64::from(*drawn) - expected).abs();
                        // Below 0.2 %; the discrepancy grows with the logarithm of the number.
                        assert!(off < 40.0, "{step} {first} {nth}: {off}");
                    }
                }
            }
        }
    }

    #[test]
    fn lists_of_any_weight_are_in_range() {
        for weights in [
            &[1.0][..],
            &[1e-300, 1.0],
            &[1.0, 1e-300],
            &[1e300, 1e300],
            &[1.0; 7],
        ] {
            let mixture = Mixture::new(Some(weights));
            let all = (0..1000).chain([u64::MAX, 1 << 63]);
            assert!(
                all.map(|n| mixture.list(n))
                    .all(|list| list < weights.len())
            );
        }
        assert_eq!(Mixture::new(None).list(7), 0);
    }
}
