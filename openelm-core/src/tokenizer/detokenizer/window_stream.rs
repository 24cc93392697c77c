//! Decoding by the decoder of the tokenizer's file, in windows of few tokens.
//!
//! The text of a token may depend on its neighbours: a decoder removes the space of the first
//! token, joins words, or makes characters of bytes. The new text of a token is the text of the
//! window with it, without the text of the window before it, as in Hugging Face's `DecodeStream`
//! and mlx-lm's `NaiveStreamingDetokenizer`.

use std::{fmt, sync::Arc};

use super::pieces::Pieces;
use crate::{
    error::{Error, Result},
    tokenizer::{library::guarded, spec::Coder},
};

/// A stream of tokens of any tokenizer.
#[derive(Clone)]
pub(super) struct WindowStream {
    coder: Arc<Coder>,
    pieces: Arc<Pieces>,
    /// The last tokens whose text was returned, and their text. Never only tokens without text:
    /// the next token would be decoded as the first of a text.
    context: Vec<u32>,
    context_text: String,
    /// Tokens whose text is held back.
    pending: Vec<u32>,
}

impl WindowStream {
    /// Starts a text.
    pub(super) fn new(coder: Arc<Coder>, pieces: Arc<Pieces>) -> Self {
        Self {
            coder,
            pieces,
            context: Vec::new(),
            context_text: String::new(),
            pending: Vec::new(),
        }
    }

    /// The vocabulary.
    pub(super) fn pieces(&self) -> &Pieces {
        &self.pieces
    }

    /// Appends the text that is final after `id` to `text`.
    pub(super) fn push_to(&mut self, id: u32, text: &mut String) -> Result<()> {
        self.pieces.get(id)?;
        if self.pieces.is_special(id) {
            return Ok(());
        }
        self.pending.push(id);
        let window = self.window();
        let decoded = self.decode(&window).inspect_err(|_| {
            self.pending.pop();
        })?;
        if !decoded.ends_with(char::REPLACEMENT_CHARACTER) {
            self.release(window, decoded, text)?;
        }
        Ok(())
    }

    /// Appends the text that was held back.
    pub(super) fn flush(&mut self, text: &mut String) {
        let window = self.window();
        if self.pending.is_empty() {
            return;
        }
        // The window was decoded before, when its last token was pushed.
        if let Ok(decoded) = self.decode(&window) {
            let _ = self.release(window, decoded, text);
        }
        self.pending.clear();
    }

    fn window(&self) -> Vec<u32> {
        [self.context.as_slice(), &self.pending].concat()
    }

    /// Appends the text of the pending tokens, and makes them the context.
    fn release(&mut self, window: Vec<u32>, decoded: String, text: &mut String) -> Result<()> {
        let alone = self.decode(&self.pending)?;
        // Bytes that are invalid after the context can change its text, which was returned.
        text.push_str(decoded.strip_prefix(&self.context_text).unwrap_or(&alone));
        if alone.is_empty() {
            (self.context, self.context_text) = (window, decoded);
        } else {
            (self.context, self.context_text) = (self.pending.clone(), alone);
        }
        self.pending.clear();
        Ok(())
    }

    fn decode(&self, ids: &[u32]) -> Result<String> {
        guarded(|| self.coder.decode(ids, true))
            .map_err(|problem| Error::tokenizer(self.pieces.path(), problem))
    }
}

impl fmt::Debug for WindowStream {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WindowStream")
            .field("context", &self.context)
            .field("pending", &self.pending)
            .finish_non_exhaustive()
    }
}
