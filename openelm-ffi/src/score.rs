//! Scores of texts: methods of [`LanguageModel`].

use std::sync::Arc;

use openelm_core::evaluate::{self, PerplexityOptions};

use crate::{cancellation::Cancellation, error::Result, language_model::LanguageModel};

/// A continuation to score after a context.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::evaluate::ScoreRequest")]
pub struct ScoreRequest {
    pub context: String,
    pub continuation: String,
}

/// Mirrors `openelm_core::evaluate::LogLikelihood`.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::evaluate::LogLikelihood")]
pub struct LogLikelihood {
    pub sum: f64,
    pub is_greedy: bool,
    pub tokens: Vec<u32>,
    pub token_logprobs: Vec<f32>,
    pub truncated: u64,
}

/// The perplexity of texts, over all their tokens.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::evaluate::Perplexity")]
pub struct Perplexity {
    pub texts: u64,
    pub tokens: u64,
    pub bytes: u64,
    pub nats: f64,
    pub nats_per_token: f64,
    pub perplexity: f64,
    pub bits_per_byte: f64,
}

#[uniffi::export]
impl LanguageModel {
    /// The log-likelihoods of continuations after their contexts, in order.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) for a request that cannot be encoded,
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub async fn log_likelihoods(
        &self,
        requests: Vec<ScoreRequest>,
        cancellation: Arc<Cancellation>,
    ) -> Result<Vec<LogLikelihood>> {
        let requests = requests.into_iter().map(|request| evaluate::ScoreRequest {
            context: request.context.into(),
            continuation: request.continuation,
        });
        let scored = self
            .handle()
            .log_likelihoods(requests.collect(), &cancellation.0)
            .await?;
        let mirror = |found: evaluate::LogLikelihood| LogLikelihood {
            sum: found.sum,
            is_greedy: found.is_greedy,
            tokens: found.tokens,
            token_logprobs: found.token_logprobs,
            truncated: found.truncated as u64,
        };
        Ok(scored.into_iter().map(mirror).collect())
    }

    /// The perplexity of `texts`.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption) if no text has a token,
    /// [`Error::Cancelled`](crate::Error::Cancelled).
    pub async fn perplexity(
        &self,
        texts: Vec<String>,
        cancellation: Arc<Cancellation>,
    ) -> Result<Perplexity> {
        let found = self
            .handle()
            .perplexity(texts, PerplexityOptions::default(), &cancellation.0);
        let found = found.await?;
        Ok(Perplexity {
            texts: found.documents as u64,
            tokens: found.tokens as u64,
            bytes: found.bytes as u64,
            nats: found.nats,
            nats_per_token: found.nats_per_token(),
            perplexity: found.perplexity(),
            bits_per_byte: found.bits_per_byte(),
        })
    }
}
