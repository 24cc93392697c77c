//! The beginning that a text must have.

use std::sync::Arc;

use super::{options::Sampling, sampler_vocabulary::SamplerVocabulary};
use crate::error::{Error, Result};

/// The tokens of a beginning.
#[derive(Debug, Clone)]
pub(super) struct ForcedPrefix(Arc<[u32]>);

impl ForcedPrefix {
    /// The tokens of `forced_prefix` after `prompt`; `None` without it.
    pub(super) fn new(
        sampling: &Sampling,
        vocabulary: &SamplerVocabulary<'_>,
        prompt: &[u32],
    ) -> Result<Option<Self>> {
        if sampling.forced_prefix.is_empty() {
            return Ok(None);
        }
        let wrong = |problem: String| Error::option("forced_prefix", problem);
        let tokenizer = vocabulary.tokenizer.ok_or_else(|| {
            wrong("expected none in a generation without a tokenizer, found one".into())
        })?;
        let ids = tokenizer.encode_continuation(prompt, &sampling.forced_prefix)?;
        match ids.iter().find(|&&id| id as usize >= vocabulary.size) {
            Some(id) => Err(wrong(format!(
                "expected ids below {}, found the token {id}",
                vocabulary.size
            ))),
            None => Ok(Some(Self(ids.into()))),
        }
    }

    /// The token after `chosen` tokens of the text; `None` after the beginning.
    pub(super) fn token(&self, chosen: usize) -> Option<u32> {
        self.0.get(chosen).copied()
    }
}
