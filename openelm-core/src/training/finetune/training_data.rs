//! Tokenised data of a run.

use crate::data::dataset::{Example, PreferencePair};

/// Tokenised training or validation data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainingData {
    /// Texts, or prompts and completions.
    Examples(Vec<Example>),
    /// Pairs of answers, the preferred one first.
    Pairs(Vec<PreferencePair>),
}
