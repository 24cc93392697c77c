//! The events of a generation: progress, tokens, and at the end the reason and the statistics.

use std::time::Duration;

/// An event of a [`Generation`](crate::generation::generation::Generation).
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// Part of the prompt was read.
    Prefill {
        /// Tokens read so far.
        processed: usize,
        /// Tokens of the prompt, BOS included.
        total: usize,
    },
    /// A generated token.
    Token(Token),
    /// The last event.
    Finished {
        /// Why the text ends.
        reason: FinishReason,
        /// Counts and times.
        stats: Stats,
    },
}

/// A generated token.
#[derive(Debug, Clone, PartialEq)]
pub struct Token {
    /// Its id.
    pub id: u32,
    /// The text that became certain with it: often its own, empty while a character is
    /// incomplete or a stop string may be under way. All pieces together are the whole text.
    pub text: String,
    /// The model's log-probability of this token, before penalty and temperature; `None` unless
    /// [`GenerateOptions::logprobs`](super::GenerateOptions::logprobs) asks.
    pub logprob: Option<f32>,
    /// The likeliest tokens and their log-probabilities, likeliest first.
    pub top_logprobs: Vec<TokenLogprob>,
}

/// A candidate for a token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct TokenLogprob {
    /// Its id.
    pub id: u32,
    /// The model's log-probability, before penalty and temperature.
    pub logprob: f32,
}

/// Why a text ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended it.
    Eos,
    /// The text reached a stop string.
    Stop,
    /// `max_tokens` were generated.
    Length,
    /// The model's context is full.
    Context,
    /// It was cancelled.
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
    /// Tokens of the prompt that had been read before, see
    /// [`PromptCache`](crate::generation::prompt_cache::PromptCache).
    pub cached_tokens: usize,
    /// Tokens generated, an end-of-sequence token included.
    pub generated_tokens: usize,
    /// From the start to the first token.
    pub prefill: Duration,
    /// From the first token to the last.
    pub decode: Duration,
    /// The seed the draws used.
    pub seed: u64,
}

impl Stats {
    /// Prompt tokens read a second, the first token's step included.
    pub fn prefill_tokens_per_second(&self) -> f64 {
        let read = self.prompt_tokens.saturating_sub(self.cached_tokens);
        rate(read, self.prefill)
    }

    /// Tokens generated a second after the first.
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
