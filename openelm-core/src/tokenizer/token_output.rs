//! The output of single tokens, for constraints on a text.

use super::{detokenizer::Kind, tokenizer::Tokenizer};
use crate::error::{Error, Result};

/// The output of a token inside a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum TokenOutput {
    /// Bytes of the text; a character may be divided between tokens.
    Text(Vec<u8>),
    /// No text: a special token of this name.
    Special(String),
    /// An id without a token.
    Gap,
}

impl Tokenizer {
    /// The output of every id that the model has, after other text.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the text of a token depends on its neighbours.
    pub(crate) fn outputs(&self) -> Result<Vec<TokenOutput>> {
        let bytes = self.token_bytes().ok_or_else(|| {
            let problem = "structured output: expected a decoder whose tokens have a text of \
                           their own (ByteLevel, Metaspace, or Replace with ByteFallback)";
            Error::tokenizer(self.path(), problem)
        })?;
        let len = self.model_vocab.unwrap_or(usize::MAX);
        let outputs = bytes.into_iter().take(len).enumerate();
        let output = |(id, bytes)| match self.pieces.piece(id as u32) {
            None => TokenOutput::Gap,
            Some((name, Kind::Special)) => TokenOutput::Special(name.to_owned()),
            Some(_) => TokenOutput::Text(bytes),
        };
        Ok(outputs.map(output).collect())
    }
}
