//! The tokens of a request: contexts and the continuations to score after them.

use super::{
    log_likelihood::ScoreRequest,
    windows::{WindowOptions, Windows},
};
use crate::{
    error::{Error, Result},
    generation::LanguageModel,
};

/// The tokens of a continuation or a text to score.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRequest {
    pub(super) parts: Vec<Part>,
    /// [`LogLikelihood::truncated`](super::LogLikelihood::truncated).
    pub(super) truncated: usize,
}

/// Tokens that are scored after other tokens. Neither is empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) context: Vec<u32>,
    pub(super) continuation: Vec<u32>,
}

impl EncodedRequest {
    /// Encodes a continuation and its context as lm-eval does: white space at the end of the
    /// context becomes the beginning of the continuation, the text of both is encoded at once, and
    /// the continuation has the tokens after as many as the context alone has. BOS comes first; an
    /// empty context is BOS alone. A context that is too long loses its first tokens, BOS included.
    ///
    /// # Errors
    /// [`Error::Option`] if the continuation has no tokens of its own, or more than the model's
    /// context; [`Error::Tokenizer`] as in [`Tokenizer::encode`](crate::Tokenizer::encode).
    pub fn of_continuation(model: &LanguageModel, request: &ScoreRequest) -> Result<Self> {
        if request.continuation.is_empty() {
            return Err(Error::option("continuation", "it is empty"));
        }
        let tokenizer = model.tokenizer();
        let context = tokenizer.encode_prompt(request.context.trim_end_matches(is_space))?;
        let whole = [&*request.context, &*request.continuation].concat();
        let mut whole = tokenizer.encode_prompt(&whole)?;
        let continuation = whole.split_off(context.len().min(whole.len()));
        if continuation.is_empty() {
            let problem = format!(
                "it has no tokens of its own: the context alone has {} tokens, and so has the \
                 whole text",
                context.len()
            );
            return Err(Error::option("continuation", problem));
        }
        Self::of_tokens(model, context, continuation)
    }

    /// A continuation of tokens, which may not be empty, and its context.
    ///
    /// # Errors
    /// As [`of_continuation`](Self::of_continuation).
    pub fn of_tokens(
        model: &LanguageModel,
        mut context: Vec<u32>,
        continuation: Vec<u32>,
    ) -> Result<Self> {
        let most = model.model().config().max_context_length();
        let tokens = continuation.len();
        if tokens > most {
            let problem = format!(
                "expected at most the {most} tokens of the model's context, found {tokens}"
            );
            return Err(Error::option("continuation", problem));
        }
        for (option, ids) in [("context", &context), ("continuation", &continuation)] {
            check_ids(model, option, ids)?;
        }
        // The last token is predicted and not read.
        let truncated = (context.len() + tokens).saturating_sub(most + 1);
        context.drain(..truncated);
        Ok(Self {
            parts: vec![Part {
                context,
                continuation,
            }],
            truncated,
        })
    }

    /// Encodes a text whose tokens are all scored, in windows. The first token follows BOS, which is
    /// not scored itself.
    ///
    /// # Errors
    /// [`Error::Option`] if the text has no tokens, or an option is out of range;
    /// [`Error::Tokenizer`] as in [`Tokenizer::encode`](crate::Tokenizer::encode).
    pub fn of_text(model: &LanguageModel, text: &str, options: &WindowOptions) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::option("text", "it is empty"));
        }
        let tokens = model.tokenizer().encode_prompt(text)?;
        Self::in_windows(model, &tokens, options)
    }

    /// Divides `tokens` into windows; the first one, BOS, is not scored.
    pub(super) fn in_windows(
        model: &LanguageModel,
        tokens: &[u32],
        options: &WindowOptions,
    ) -> Result<Self> {
        check_ids(model, "text", tokens)?;
        let windows = Windows::new(options, model.model().config())?;
        let parts: Vec<Part> = windows.parts(tokens).collect();
        if parts.is_empty() {
            return Err(Error::option("text", "it has no tokens"));
        }
        Ok(Self {
            parts,
            truncated: 0,
        })
    }

    /// Number of scored tokens.
    pub fn tokens(&self) -> usize {
        self.windows().sum()
    }

    /// Number of scored tokens of each window; one window for a continuation.
    pub(super) fn windows(&self) -> impl Iterator<Item = usize> {
        self.parts.iter().map(|part| part.continuation.len())
    }
}

impl Part {
    /// The tokens that the network reads: all but the last.
    pub(super) fn read(&self) -> impl Iterator<Item = u32> {
        let all = self.context.iter().chain(&self.continuation).copied();
        all.take(self.context.len() + self.continuation.len() - 1)
    }
}

/// Refuses an id that the model does not have, and no tokens at all.
fn check_ids(model: &LanguageModel, option: &'static str, ids: &[u32]) -> Result<()> {
    let vocab = model.model().config().vocab_size();
    if ids.is_empty() {
        return Err(Error::option(option, "it has no tokens"));
    }
    match ids.iter().find(|&&id| id as usize >= vocab) {
        Some(id) => {
            let problem = format!("token {id} is not in the model's vocabulary of {vocab}");
            Err(Error::option(option, problem))
        }
        None => Ok(()),
    }
}

/// White space as Python's `str.rstrip` removes it.
fn is_space(character: char) -> bool {
    character.is_whitespace() || ('\u{1C}'..='\u{1F}').contains(&character)
}
