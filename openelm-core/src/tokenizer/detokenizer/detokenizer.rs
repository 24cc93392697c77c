//! Decoding of token ids to text, one token at a time.

use std::sync::Arc;

use super::{piece_stream::PieceStream, pieces::Pieces, window_stream::WindowStream};
use crate::{error::Result, tokenizer::spec::Coder};

/// Decodes a stream of token ids to text.
///
/// The concatenated results of [`push`](Self::push) and [`finish`](Self::finish) are the text of
/// the ids; an incomplete character is held back until it is complete. The cost per token does not
/// depend on the length of the text.
#[derive(Clone, Debug)]
pub struct Detokenizer(Stream);

#[derive(Clone, Debug)]
enum Stream {
    Pieces(PieceStream),
    Windows(WindowStream),
}

impl Detokenizer {
    /// Starts a text of a tokenizer like LLaMA's.
    pub(crate) fn of_pieces(pieces: Arc<Pieces>) -> Self {
        Self(Stream::Pieces(PieceStream::new(pieces)))
    }

    /// Starts a text of any tokenizer.
    pub(in crate::tokenizer) fn of_coder(coder: Arc<Coder>, pieces: Arc<Pieces>) -> Self {
        Self(Stream::Windows(WindowStream::new(coder, pieces)))
    }

    /// The text that is final after `id`; often empty.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::error::Error::Tokenizer) if the vocabulary has no such id; the
    /// state does not change then.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let mut text = String::new();
        self.push_to(id, &mut text)?;
        Ok(text)
    }

    /// The text that was held back: U+FFFD for each byte of an incomplete character (one for the
    /// character in a tokenizer unlike LLaMA's).
    pub fn finish(&mut self) -> String {
        let mut text = String::new();
        match &mut self.0 {
            Stream::Pieces(stream) => stream.flush(&mut text),
            Stream::Windows(stream) => stream.flush(&mut text),
        }
        text
    }

    /// True if the vocabulary has the id.
    pub(crate) fn has_token(&self, id: u32) -> bool {
        let pieces = match &self.0 {
            Stream::Pieces(stream) => stream.pieces(),
            Stream::Windows(stream) => stream.pieces(),
        };
        pieces.name(id).is_some()
    }

    /// Like [`push`](Self::push), appending to `text`.
    pub(crate) fn push_to(&mut self, id: u32, text: &mut String) -> Result<()> {
        match &mut self.0 {
            Stream::Pieces(stream) => stream.push_to(id, text),
            Stream::Windows(stream) => stream.push_to(id, text),
        }
    }
}
