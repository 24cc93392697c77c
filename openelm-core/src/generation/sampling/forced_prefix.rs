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
        if let Some(id) = ids.iter().find(|&&id| id as usize >= vocabulary.size) {
            let size = vocabulary.size;
            return Err(wrong(format!(
                "expected ids below {size}, found the token {id}"
            )));
        }
        // A special token has no text, and a normalizer may change it.
        let mut detokenizer = tokenizer.detokenizer(prompt);
        let mut text = String::new();
        for &id in &ids {
            text += &detokenizer.push(id)?;
        }
        text += &detokenizer.finish();
        if text != sampling.forced_prefix {
            let prefix = &sampling.forced_prefix;
            return Err(wrong(format!(
                "expected a text that the tokens reproduce, found {prefix:?}, whose tokens have \
                 the text {text:?}"
            )));
        }
        Ok(Some(Self(ids.into())))
    }

    /// The token after `chosen` tokens of the text; `None` after the beginning.
    pub(super) fn token(&self, chosen: usize) -> Option<u32> {
        self.0.get(chosen).copied()
    }
}
