//! The report of a conversion, the content of `convert-report.json`.

use std::path::PathBuf;

use serde::Serialize;

/// The report of a conversion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConvertReport {
    /// The source file or folder.
    pub source: PathBuf,
    /// Description of the source's format.
    pub source_format: &'static str,
    /// The written file or folder.
    pub target: PathBuf,
    /// The result's format: the name of a [`Format`](super::Format).
    pub format: &'static str,
    /// Parameters of the model.
    pub parameters: u64,
    /// Size of the source's weights, in bytes.
    pub source_bytes: u64,
    /// Size of the written weights, in bytes.
    pub bytes: u64,
    /// Average number of bits per parameter, including scales.
    pub bits_per_weight: f64,
    /// Number of written tensors.
    pub tensors: usize,
    /// Time of reading, converting and writing, in seconds.
    pub seconds: f64,
    /// The comparison of source and result; `None` if it was off.
    pub verification: Option<Verification>,
}

/// The comparison of the source and the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Counts of tensors by their difference.
    pub tensors: TensorChecks,
    /// Number of positions at which the models' predictions were compared.
    pub tokens: usize,
    /// True if the tokens are of English text; without a tokenizer they are random.
    pub text: bool,
    /// Mean Kullback-Leibler divergence of the result's next-token distribution from the source's,
    /// in nats.
    pub mean_kl: f64,
    /// Largest divergence, in nats.
    pub max_kl: f64,
    /// Fraction of positions at which both models have the same most likely token.
    pub top1_agreement: f64,
    /// Largest difference of a logit.
    pub max_logit_difference: f64,
    /// The tensors with the largest relative error, worst first; none if all are identical.
    pub worst: Vec<TensorError>,
    /// Time of the comparison, in seconds.
    pub seconds: f64,
}

/// Counts of tensors by their difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TensorChecks {
    /// Equal to the source in every number.
    pub identical: usize,
    /// Within one rounding to the result's type.
    pub rounded: usize,
    /// Quantised: equal to quantising the source again, or to the source's quantised numbers with
    /// the scales cast.
    pub quantized: usize,
}

/// The difference of a tensor from the source's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorError {
    /// Name in the checkpoint.
    pub name: String,
    /// Norm of the difference divided by the norm of the source's tensor.
    pub relative_error: f64,
    /// Largest absolute difference of a number.
    pub max_error: f64,
}
