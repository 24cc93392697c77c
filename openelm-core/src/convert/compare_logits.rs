//! Comparison of two models' predictions: Kullback-Leibler divergence of the next-token
//! distributions, KL(P, Q) = Σ p (ln p - ln q), with p of the source and q of the result.

/// The difference of two models' predictions.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Predictions {
    pub(super) mean_kl: f64,
    pub(super) max_kl: f64,
    pub(super) top1_agreement: f64,
    pub(super) max_logit_difference: f64,
}

/// Compares logits `[L, V]` row by row.
pub(super) fn compare_logits(source: &[f32], result: &[f32], vocab: usize) -> Predictions {
    let mut compared = Predictions::default();
    let mut rows = 0.0;
    for (source, result) in source.chunks(vocab).zip(result.chunks(vocab)) {
        let (log_source, log_result) = (log_sum_exp(source), log_sum_exp(result));
        let mut kl = 0.0;
        for (&a, &b) in source.iter().zip(result) {
            let (p, q) = (f64::from(a) - log_source, f64::from(b) - log_result);
            kl += p.exp() * (p - q);
            let difference = f64::from((a - b).abs());
            compared.max_logit_difference = compared.max_logit_difference.max(difference);
        }
        // Rounding can make the sum for two equal rows slightly negative.
        let kl = kl.max(0.0);
        rows += 1.0;
        compared.mean_kl += kl;
        compared.max_kl = compared.max_kl.max(kl);
        if likeliest(source) == likeliest(result) {
            compared.top1_agreement += 1.0;
        }
    }
    if rows > 0.0 {
        compared.mean_kl /= rows;
        compared.top1_agreement /= rows;
    }
    if source.iter().chain(result).any(|logit| !logit.is_finite()) {
        compared.mean_kl = f64::NAN;
    }
    compared
}

fn log_sum_exp(row: &[f32]) -> f64 {
    let max = f64::from(row.iter().fold(f32::NEG_INFINITY, |max, &x| max.max(x)));
    let sum: f64 = row.iter().map(|&x| (f64::from(x) - max).exp()).sum();
    max + sum.ln()
}

fn likeliest(row: &[f32]) -> Option<usize> {
    let best = row.iter().enumerate().max_by(|a, b| a.1.total_cmp(b.1));
    best.map(|(i, _)| i)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn divergence_of_known_distributions() {
        // Softmax of ln p is p: KL of (1/4, 3/4) from (1/2, 1/2) is ln 2 / 2 + ln(2/3) / 2.
        let source = [0.5f32.ln(), 0.5f32.ln(), 0.25f32.ln(), 0.75f32.ln()];
        let result = [0.25f32.ln(), 0.75f32.ln(), 0.25f32.ln(), 0.75f32.ln()];
        let compared = compare_logits(&source, &result, 2);
        let expected = 0.5 * (2.0f64.ln() + (2.0f64 / 3.0).ln());
        assert!((compared.max_kl - expected).abs() < 1e-6, "{compared:?}");
        assert!(
            (compared.mean_kl - expected / 2.0).abs() < 1e-6,
            "{compared:?}"
        );
        assert_eq!(compare_logits(&source, &source, 2).max_kl, 0.0);
        let nan = compare_logits(&[f32::NAN, 0.0], &[0.0, 0.0], 2);
        assert!(nan.mean_kl.is_nan());
    }
}
