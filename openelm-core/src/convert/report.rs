//! The report of a conversion, as in `convert-report.json`.

use std::path::PathBuf;

use serde::Serialize;

/// The report of a conversion.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct ConvertReport {
    /// The file or folder that was read.
    pub source: PathBuf,
    /// The source's format in words.
    pub source_format: &'static str,
    /// The file or folder that was made.
    pub target: PathBuf,
    /// The result's format: `mlx`, `hf` or `gguf`.
    pub format: &'static str,
    /// Parameters of the model.
    pub parameters: u64,
    /// Size of the source's weights, in bytes.
    pub source_bytes: u64,
    /// Size of the weights that were written, in bytes.
    pub bytes: u64,
    /// Bits that a parameter takes on average, scales included.
    pub bits_per_weight: f64,
    /// Tensors that were written.
    pub tensors: usize,
    /// Time that reading, converting and writing took.
    pub seconds: f64,
    /// The comparison of source and result; `None` if it was turned off.
    pub verification: Option<Verification>,
}

/// The comparison of the source and the result.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Verification {
    /// Counts of tensors by their difference.
    pub tensors: TensorChecks,
    /// Positions at which the models' predictions were compared.
    pub tokens: usize,
    /// These are of English text; random ids where there is no tokenizer.
    pub text: bool,
    /// Mean of the Kullback-Leibler divergence of the result's next-token distribution from the
    /// source's, in nats.
    pub mean_kl: f64,
    /// Its largest value.
    pub max_kl: f64,
    /// Share of positions at which both hold the same token the likeliest.
    pub top1_agreement: f64,
    /// Largest difference of a logit.
    pub max_logit_difference: f64,
    /// The tensors with the largest relative error, worst first; none if all are identical.
    pub worst: Vec<TensorError>,
    /// Time that the comparison took.
    pub seconds: f64,
}

/// Counts of tensors by their difference.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct TensorChecks {
    /// Number for number the source's.
    pub identical: usize,
    /// Within one rounding to the result's type.
    pub rounded: usize,
    /// Quantised: what packing the source's numbers gives, or what was packed, its scales cast.
    pub quantized: usize,
}

/// The difference of a tensor from the source's.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TensorError {
    /// Its name in the checkpoint.
    pub name: String,
    /// Root of the summed squares of the differences over that of the source's numbers.
    pub relative_error: f64,
    /// Largest difference of a number.
    pub max_error: f64,
}
