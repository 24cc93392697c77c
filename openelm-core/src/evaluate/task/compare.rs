//! Comparison of two runs on the same questions.

use crate::error::{Error, Result};

/// The difference of two runs in a metric, by the pairs of values of each question.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PairedDifference {
    /// Mean of `second - first`.
    pub difference: f64,
    /// Standard error of the difference.
    pub stderr: f64,
    /// Lower end of the 95 % confidence interval (normal approximation).
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
    /// Number of questions.
    pub documents: usize,
}

impl PairedDifference {
    /// Compares the values of two runs, in the same order of questions.
    ///
    /// # Errors
    /// [`Error::Option`] for fewer than two values, or different numbers of values.
    pub fn new(first: &[f64], second: &[f64]) -> Result<Self> {
        if first.len() != second.len() || first.len() < 2 {
            return Err(Error::option(
                "values",
                format!(
                    "expected two runs with the same number of values, at least 2, found {} and {}",
                    first.len(),
                    second.len()
                ),
            ));
        }
        let differences: Vec<f64> = first.iter().zip(second).map(|(a, b)| b - a).collect();
        let count = differences.len() as f64;
        let difference = differences.iter().sum::<f64>() / count;
        let squares: f64 = differences.iter().map(|d| (d - difference).powi(2)).sum();
        let stderr = (squares / (count - 1.0)).sqrt() / count.sqrt();
        Ok(Self::with_stderr(difference, stderr, differences.len()))
    }

    /// A difference with its standard error, over `documents`.
    pub fn with_stderr(difference: f64, stderr: f64, documents: usize) -> Self {
        Self {
            difference,
            stderr,
            low: difference - Z * stderr,
            high: difference + Z * stderr,
            documents,
        }
    }
}

/// The 97.5 % quantile of the normal distribution.
const Z: f64 = 1.959_963_984_540_054;
