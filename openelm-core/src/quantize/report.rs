//! The report of a quantisation.

use std::path::PathBuf;

use serde::Serialize;

use super::{quality::Quality, widths::Sensitivity};

/// The report of a quantisation: the differences from the unquantised model on held-out text.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct QuantizeReport {
    /// The source, as given.
    pub source: PathBuf,
    /// The target, as given.
    pub target: PathBuf,
    /// The method.
    pub method: &'static str,
    /// Numbers that share a scale.
    pub group_size: usize,
    /// Number of parameters.
    pub parameters: u64,
    /// Size of the source's weights, in bytes.
    pub source_bytes: u64,
    /// Size of the result's weights, in bytes.
    pub bytes: u64,
    /// Average number of bits per parameter, including scales.
    pub bits_per_weight: f64,
    /// Tokens of the calibration text.
    pub calibration_tokens: usize,
    /// Tokens of the held-out text.
    pub valid_tokens: usize,
    /// Perplexity of the unquantised model on the held-out text.
    pub unquantized_perplexity: f64,
    /// The model rounded to the same widths.
    pub rounded: Quality,
    /// The result.
    pub quantized: Quality,
    /// Part by part, in the order of the computation.
    pub parts: Vec<PartReport>,
    /// The sizes and divergences of roundings to each width, and of the result.
    pub points: Vec<SizePoint>,
    /// Duration in seconds; of a run that was continued, its last part.
    pub seconds: f64,
}

/// A part of the network: the embedding, a layer, or the head.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PartReport {
    /// Name in the checkpoint.
    pub name: String,
    /// Number of bits of each quantised matrix.
    pub matrices: Vec<MatrixReport>,
    /// Divergence of the model, in nats per token, if only this part is rounded.
    pub rounded_kl: f64,
    /// Divergence of the model if only this part is quantised by the method.
    pub kl: f64,
}

/// A quantised matrix.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct MatrixReport {
    /// Name in the checkpoint, without `.weight`.
    pub name: String,
    /// Bits per number.
    pub bits: usize,
    /// The divergences for which the widths were chosen; none for equal widths.
    pub sensitivity: Vec<Sensitivity>,
}

/// A size and its divergence.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SizePoint {
    /// `rounded` or the method.
    pub method: &'static str,
    /// Average number of bits per parameter, including scales.
    pub bits_per_weight: f64,
    /// Size of the weights, in bytes.
    pub bytes: u64,
    /// The difference from the unquantised model.
    #[serde(flatten)]
    pub quality: Quality,
}
