//! The events of a generation: progress, tokens, and finally the reason and the statistics.

use std::time::Duration;

/// An event of a [`Generation`](crate::generation::generation::Generation).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// A part of the prompt was read.
    Prefill {
        /// Tokens read so far.
        processed: usize,
        /// Tokens of the prompt, BOS included.
        total: usize,
        /// The prompt's tokens after the first one whose log-probabilities this part gives; empty
        /// unless [`GenerateOptions::prompt_logprobs`](super::GenerateOptions::prompt_logprobs) is
        /// set.
        logprobs: Vec<PromptToken>,
    },
    /// A generated token.
    Token(Token),
    /// The last event.
    Finished {
        /// The reason of the end.
        reason: FinishReason,
        /// Counts and times.
        stats: Stats,
    },
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Token id.
    pub id: u32,
    /// The text that is final after this token: often the token's own, empty while a character is
    /// incomplete or a stop string may have begun. The concatenation is the whole text.
    pub text: String,
    /// The model's log-probability of this token, before penalty and temperature; `None` unless
    /// [`GenerateOptions::logprobs`](super::GenerateOptions::logprobs) is set.
    pub logprob: Option<f32>,
    /// The most likely tokens and their log-probabilities, most likely first.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// A token of the prompt with its log-probability.
#[derive(Debug, Clone, PartialEq)]
pub struct PromptToken {
    /// Token id.
    pub id: u32,
    /// The model's log-probability of this token after those before it; negative infinity if the
    /// tokenizer has no such token.
    pub logprob: f32,
    /// The [`logprobs`](super::GenerateOptions::logprobs) most likely tokens at its place, most
    /// likely first.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// A candidate for a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// Token id.
    pub id: u32,
    /// The model's log-probability, before penalty and temperature.
    pub logprob: f32,
}

/// The reason for the end of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model generated the end-of-sequence token.
    Eos,
    /// The text reached a stop string.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The model's context is full.
    Context,
    /// The generation was cancelled.
    Cancelled,
}

impl FinishReason {
    /// The reason as one lower-case word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Eos => "eos",
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Context => "context",
            Self::Cancelled => "cancelled",
        }
    }
}

/// Counts and times of one generation.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Stats {
    /// Tokens of the prompt, BOS included.
    pub prompt_tokens: usize,
    /// Tokens of the prompt that came from the cache, see
    /// [`PromptCache`](crate::generation::prompt_cache::PromptCache).
    pub cached_tokens: usize,
    /// Tokens generated, an end-of-sequence token included.
    pub generated_tokens: usize,
    /// Drafts of tokens that were passed through the network, see
    /// [`prompt_lookup`](super::GenerateOptions::prompt_lookup) and
    /// [`DraftModel`](super::DraftModel).
    pub drafted_tokens: usize,
    /// Drafts that became tokens of the text.
    pub accepted_tokens: usize,
    /// Time from the start to the first token.
    pub prefill: Duration,
    /// Time from the first token to the last.
    pub decode: Duration,
    /// The seed of the draws.
    pub seed: u64,
}

impl Stats {
    /// Prompt tokens read per second, including the first token's step.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        let read = self.prompt_tokens.saturating_sub(self.cached_tokens);
        rate(read, self.prefill)
    }

    /// Tokens generated per second after the first.
    pub fn decode_tokens_per_second(&self) -> f64 {
        rate(self.generated_tokens.saturating_sub(1), self.decode)
    }
}

fn rate(tokens: usize, time: Duration) -> f64 {
    if time.is_zero() {
        0.0
    } else {
        tokens as f64 / time.as_secs_f64()
    }
}
