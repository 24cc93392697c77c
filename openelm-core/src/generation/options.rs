//! Options of a generation.

use super::sampling::Sampling;

/// Options of one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Largest number of tokens to generate. Default 256.
    pub max_tokens: usize,
    /// How tokens are chosen. Default greedy.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it. Default none.
    pub stop: Vec<String>,
    /// Report the log-probabilities of this many likeliest tokens at each step. Default 0: none.
    pub logprobs: usize,
    /// Tokens of the prompt to read at a time. `None`, the default, is 128 on a CPU, where
    /// smaller chunks save work above the diagonal, and 512 on a GPU.
    pub prefill_chunk: Option<usize>,
    /// Go on after the end-of-sequence token. Default false.
    pub ignore_eos: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: 0,
            prefill_chunk: None,
            ignore_eos: false,
        }
    }
}
