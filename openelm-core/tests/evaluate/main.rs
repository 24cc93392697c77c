//! Scoring with the bundled tales model: log-likelihoods, windows, perplexity, divergence.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod divergence;
mod log_likelihoods;
mod models;
mod perplexity;
mod refused;
mod texts;
