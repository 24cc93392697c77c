//! The standard error of a mean per token.

/// The standard error of `Σ sums / Σ tokens` over units of text, each with its sum and its number
/// of tokens: a ratio estimator, because the tokens of a unit depend on each other. `None` for fewer
/// than two units.
pub(super) fn standard_error(units: &[(f64, usize)]) -> Option<f64> {
    let count = units.len() as f64;
    let tokens: usize = units.iter().map(|unit| unit.1).sum();
    if units.len() < 2 || tokens == 0 {
        return None;
    }
    let tokens = tokens as f64;
    let mean = units.iter().map(|unit| unit.0).sum::<f64>() / tokens;
    let residuals = units.iter().map(|unit| unit.0 - mean * unit.1 as f64);
    let squares: f64 = residuals.map(|residual| residual * residual).sum();
    Some((squares * count / (count - 1.0)).sqrt() / tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_of_one_token_have_the_error_of_a_mean() {
        // Mean 2, sample variance 2.5, over five units.
        let units = [0.0, 1.0, 2.0, 3.0, 4.0].map(|sum| (sum, 1));
        let found = standard_error(&units).unwrap();
        assert!((found - 0.5_f64.sqrt()).abs() < 1e-12, "{found}");
        // Units of any length with the same mean have none.
        assert_eq!(standard_error(&[(3.0, 2), (1.5, 1)]), Some(0.0));
        assert_eq!(standard_error(&[(3.0, 2)]), None);
        assert_eq!(standard_error(&[(0.0, 0), (0.0, 0)]), None);
    }
}
