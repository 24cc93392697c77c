//! Text generation: its events.

use std::sync::Arc;

use openelm_core::{self as core, engine::EventReceiver, generation::Event};

use crate::error::Result;

/// An event of a [`GenerationStream`].
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::generation::Event")]
pub enum GenerationEvent {
    Prefill {
        processed: u64,
        total: u64,
    },
    Token {
        id: u32,
        text: String,
        logprob: Option<f32>,
        top_logprobs: Vec<TokenLogprob>,
    },
    Finished {
        reason: FinishReason,
        stats: GenerationStats,
    },
}

/// A token and its log-probability.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "documented by the record")]
pub struct TokenLogprob {
    pub id: u32,
    pub logprob: f32,
}

/// Mirrors `openelm_core::generation::FinishReason`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::generation::FinishReason")]
pub enum FinishReason {
    Eos,
    Stop,
    Length,
    Context,
    Cancelled,
}

/// Mirrors `openelm_core::generation::Stats`; times in seconds.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::generation::Stats")]
pub struct GenerationStats {
    pub prompt_tokens: u64,
    pub cached_tokens: u64,
    pub generated_tokens: u64,
    pub drafted_tokens: u64,
    pub accepted_tokens: u64,
    pub prefill_seconds: f64,
    pub decode_seconds: f64,
    pub seed: u64,
}

/// A running generation. Dropping it cancels it.
#[derive(Debug, uniffi::Object)]
pub struct GenerationStream {
    events: EventReceiver<Event>,
}

#[uniffi::export]
impl GenerationStream {
    /// The next event; `None` after the last one or once cancelled.
    ///
    /// # Errors
    /// Errors of the generation. No event follows.
    pub async fn next(&self) -> Result<Option<GenerationEvent>> {
        Ok(self.events.next().await?.map(GenerationEvent::from))
    }

    /// Cancels the generation before its next token or prompt chunk.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn cancel(&self) -> Result<()> {
        self.events.close();
        Ok(())
    }
}

impl GenerationStream {
    pub(crate) fn new(events: EventReceiver<Event>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self { events }))
    }
}

impl From<Event> for GenerationEvent {
    fn from(event: Event) -> Self {
        match event {
            Event::Prefill {
                processed, total, ..
            } => Self::Prefill {
                processed: processed as u64,
                total: total as u64,
            },
            Event::Token(token) => {
                let top = token.top_logprobs.into_iter();
                Self::Token {
                    id: token.id,
                    text: token.text,
                    logprob: token.logprob,
                    top_logprobs: top
                        .map(|top| TokenLogprob {
                            id: top.id,
                            logprob: top.logprob,
                        })
                        .collect(),
                }
            }
            Event::Finished { reason, stats } => Self::Finished {
                reason: match reason {
                    core::generation::FinishReason::Eos => FinishReason::Eos,
                    core::generation::FinishReason::Stop => FinishReason::Stop,
                    core::generation::FinishReason::Length => FinishReason::Length,
                    core::generation::FinishReason::Context => FinishReason::Context,
                    core::generation::FinishReason::Cancelled => FinishReason::Cancelled,
                },
                stats: GenerationStats {
                    prompt_tokens: stats.prompt_tokens as u64,
                    cached_tokens: stats.cached_tokens as u64,
                    generated_tokens: stats.generated_tokens as u64,
                    drafted_tokens: stats.drafted_tokens as u64,
                    accepted_tokens: stats.accepted_tokens as u64,
                    prefill_seconds: stats.prefill.as_secs_f64(),
                    decode_seconds: stats.decode.as_secs_f64(),
                    seed: stats.seed,
                },
            },
        }
    }
}
