//! Text generation as an iterator of events.

use std::borrow::Cow;

use super::{
    event::Event, options::GenerateOptions, prompt_cache::PromptCache, sequence::Sequence,
    speculation::DraftModel, turn::turn,
};
use crate::{cancel::CancelHandle, error::Result, model::Model, tokenizer::Tokenizer};

/// A running generation. Dropping it ends it.
#[derive(Debug)]
pub struct Generation<'m> {
    model: Cow<'m, Model>,
    sequence: Sequence,
}

impl<'m> Generation<'m> {
    /// Prepares to continue `prompt`, whose first token must be BOS. Without a tokenizer the
    /// events carry token ids and no text.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) for a value out of range or an empty prompt, and
    /// [`Error::PromptTooLong`](crate::Error::PromptTooLong) if the context has no room for a token
    /// after the prompt.
    pub fn new(
        model: &'m Model,
        tokenizer: Option<&Tokenizer>,
        prompt: Vec<u32>,
        options: GenerateOptions,
    ) -> Result<Self> {
        Self::with_cache(model, tokenizer, prompt, options, PromptCache::default())
    }

    /// Like [`new`](Self::new), but the common prefix of `prompt` and `cache` is not read again if
    /// the cache is of this model and its active adapters. The last token is always read.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_cache(
        model: &'m Model,
        tokenizer: Option<&Tokenizer>,
        prompt: Vec<u32>,
        options: GenerateOptions,
        cache: PromptCache,
    ) -> Result<Self> {
        Ok(Self {
            model: Cow::Borrowed(model),
            sequence: Sequence::new(model, tokenizer, prompt, options, cache)?,
        })
    }

    /// The same generation with `draft`, which writes drafts that this generation's model verifies
    /// in one pass. They change the time, not the text.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) if the draft model's vocabulary is smaller, or
    /// [`prompt_lookup`](GenerateOptions::prompt_lookup) is set.
    pub fn with_draft(mut self, draft: &DraftModel) -> Result<Self> {
        self.sequence.draft_with(&self.model, draft)?;
        Ok(self)
    }

    /// Like [`with_cache`](Self::with_cache) for the prompt that continues the tokens of `cache` with
    /// `tokens`. The cache may be a file of mlx-lm ([`PromptCache::load`]), whose tokens are unknown.
    ///
    /// # Errors
    /// As [`with_cache`](Self::with_cache), and [`Error::Option`](crate::Error::Option) if the cache
    /// is of another model or other adapters, or if its kind differs from the options'.
    pub fn continuing(
        model: &'m Model,
        tokenizer: Option<&Tokenizer>,
        tokens: &[u32],
        options: GenerateOptions,
        cache: PromptCache,
    ) -> Result<Self> {
        let prompt = cache.followed_by(model, tokens, &options.kv_cache)?;
        Self::with_cache(model, tokenizer, prompt, options, cache)
    }

    /// The same generation with its own model, which shares the weights and keeps the adapters
    /// that are active now.
    pub fn into_owned(self) -> Generation<'static> {
        Generation {
            model: Cow::Owned(self.model.into_owned()),
            sequence: self.sequence,
        }
    }

    /// The text so far: the concatenation of all events.
    pub fn text(&self) -> &str {
        self.sequence.text()
    }

    /// The tokens read and generated so far with their keys and values, for a generation whose
    /// prompt begins with these tokens.
    pub fn into_cache(self) -> PromptCache {
        self.sequence.into_cache()
    }

    /// The next event if it is ready, without work on the device: after
    /// [`advance`](super::advance), which works for several generations at once.
    pub fn ready_event(&mut self) -> Option<Result<Event>> {
        self.sequence.pop_event()
    }

    /// True if all events were taken: no event follows.
    pub fn has_ended(&self) -> bool {
        self.sequence.is_done() && !self.sequence.has_events()
    }

    /// The model and the sequence.
    pub(super) fn parts(&mut self) -> (&Model, &mut Sequence) {
        (&self.model, &mut self.sequence)
    }

    /// Waits for the step that runs on the device; the device is then idle until the next event is
    /// requested. iOS forbids the use of the GPU by an app in the background.
    ///
    /// # Errors
    /// [`Error::Mlx`](crate::Error::Mlx) if the step fails.
    pub fn settle(&self) -> Result<()> {
        self.sequence.settle()
    }

    /// A handle that cancels this generation from any thread.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.sequence.cancel_handle()
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Event>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.sequence.is_live() {
            turn(&self.model, &mut [&mut self.sequence]);
        }
        self.sequence.pop_event()
    }
}
