//! Exclusion of end tokens at the start of a text.

use mlx_rs::Array;

use super::{options::Sampling, sampler_vocabulary::SamplerVocabulary};

/// Exclusion of end tokens among the first tokens.
#[derive(Debug, Clone)]
pub(super) struct MinTokens {
    count: usize,
    /// Tokens that do not end the text, bool `[V]`.
    allowed: Array,
}

impl MinTokens {
    /// `None` without `min_tokens`.
    pub(super) fn new(sampling: &Sampling, vocabulary: &SamplerVocabulary<'_>) -> Option<Self> {
        if sampling.min_tokens == 0 {
            return None;
        }
        let ids = 0..vocabulary.size as u32;
        let allowed: Vec<bool> = ids.map(|id| !vocabulary.end_tokens.contains(&id)).collect();
        Some(Self {
            count: sampling.min_tokens,
            allowed: Array::from_slice(&allowed, &[allowed.len() as i32]),
        })
    }

    /// The tokens allowed after `chosen` tokens, bool `[V]`; `None` if all are.
    pub(super) fn allowed(&self, chosen: usize) -> Option<&Array> {
        (chosen < self.count).then_some(&self.allowed)
    }
}
