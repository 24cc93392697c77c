//! The request and the result of scoring a continuation.

use std::sync::Arc;

/// A continuation to score after a context, as lm-eval's `loglikelihood` request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ScoreRequest {
    /// Text before the continuation. May be empty: the continuation then follows BOS. Requests of
    /// one question share it.
    pub context: Arc<str>,
    /// Text to score.
    pub continuation: String,
}

/// The log-likelihood of a continuation after its context.
#[derive(Debug, Clone, PartialEq)]
pub struct LogLikelihood {
    /// Sum of the tokens' log-probabilities, in nats.
    pub sum: f64,
    /// True if each token is the most likely one after the tokens before it.
    pub is_greedy: bool,
    /// The continuation's tokens.
    pub tokens: Vec<u32>,
    /// Log-probability of each token of the continuation, in nats.
    pub token_logprobs: Vec<f32>,
    /// Number of tokens removed from the beginning of the context because context and continuation
    /// together are longer than the model's context.
    pub truncated: usize,
}
