//! The tokens that a sampler chooses from.

use std::sync::Arc;

use crate::{
    error::{Error, Result},
    tokenizer::Tokenizer,
};

/// The tokens that a sampler chooses from.
#[derive(Debug, Clone, Copy)]
pub struct SamplerVocabulary<'v> {
    /// Number of ids.
    pub size: usize,
    /// The tokens' texts; options that need them are refused without it.
    pub tokenizer: Option<&'v Tokenizer>,
    /// Ids that end the text.
    pub end_tokens: &'v [u32],
}

impl SamplerVocabulary<'_> {
    /// The bytes that each token adds to a text, for `option`.
    pub(super) fn token_bytes(&self, option: &'static str) -> Result<Arc<TokenBytes>> {
        let tokenizer = self.tokenizer.ok_or_else(|| {
            let problem = "expected none in a generation without a tokenizer, found one";
            Error::option(option, problem)
        })?;
        let mut bytes = tokenizer.token_bytes().ok_or_else(|| {
            let problem = "expected none with this tokenizer, whose tokens have no text of their \
                           own, found one";
            Error::option(option, problem)
        })?;
        bytes.resize(self.size, Vec::new());
        Ok(Arc::new(TokenBytes::new(bytes)))
    }
}

/// The bytes that each token of a vocabulary adds to a text, by id.
#[derive(Debug)]
pub(super) struct TokenBytes {
    by_id: Vec<Vec<u8>>,
    longest: usize,
}

impl TokenBytes {
    fn new(by_id: Vec<Vec<u8>>) -> Self {
        let longest = by_id.iter().map(Vec::len).max().unwrap_or(0);
        Self { by_id, longest }
    }

    /// The bytes of `texts`, by position.
    #[cfg(test)]
    pub(super) fn of_texts(texts: &[&str]) -> Self {
        Self::new(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
    }

    /// The bytes of `id`; none for an id without text.
    pub(super) fn of(&self, id: u32) -> &[u8] {
        self.by_id.get(id as usize).map_or(&[], Vec::as_slice)
    }

    /// Bytes of the longest token.
    pub(super) fn longest(&self) -> usize {
        self.longest
    }

    /// True for each token whose bytes pass `test`.
    pub(super) fn which(&self, test: impl Fn(&[u8]) -> bool) -> Vec<bool> {
        self.by_id.iter().map(|bytes| test(bytes)).collect()
    }
}
