//! Banned strings: exclusion of the tokens that would complete one.

use std::sync::Arc;

use mlx_rs::Array;

use super::{
    options::Sampling,
    sampler_vocabulary::{SamplerVocabulary, TokenBytes},
    text_end::TextEnd,
};
use crate::error::Result;

/// Strings that the text never contains.
///
/// Strings are compared with the bytes of the tokens, so a string may begin and end within a token.
#[derive(Debug, Clone)]
pub(super) struct BannedStrings {
    tokens: Arc<TokenBytes>,
    /// Tokens without a whole string, bool `[V]`.
    without: Array,
    text: TextEnd,
}

impl BannedStrings {
    /// The state at the start of a text; `None` without banned strings.
    pub(super) fn new(
        sampling: &Sampling,
        vocabulary: &SamplerVocabulary<'_>,
    ) -> Result<Option<Self>> {
        if sampling.banned_strings.is_empty() {
            return Ok(None);
        }
        let tokens = vocabulary.token_bytes("banned_strings")?;
        let text = TextEnd::new(&sampling.banned_strings);
        let without = array(&tokens.which(|bytes| !text.is_in(bytes)));
        Ok(Some(Self {
            tokens,
            without,
            text,
        }))
    }

    /// The tokens that complete no string, bool `[V]`.
    pub(super) fn allowed(&self) -> Result<Array> {
        let missing = self.text.missing(self.tokens.longest());
        if missing.is_empty() {
            return Ok(self.without.clone());
        }
        let begins = |bytes: &[u8], length| missing.contains(&bytes[..length]);
        let completes = |bytes: &[u8]| (1..=bytes.len()).any(|length| begins(bytes, length));
        let allowed = array(&self.tokens.which(|bytes| !completes(bytes)));
        Ok(self.without.logical_and(&allowed)?)
    }

    /// Appends a token to the text.
    pub(super) fn accept(&mut self, id: u32) {
        self.text.push(self.tokens.of(id));
    }
}

fn array(values: &[bool]) -> Array {
    Array::from_slice(values, &[values.len() as i32])
}
