//! Evaluation: log-likelihoods of texts, perplexity, and tasks of questions.

mod log_likelihood;
pub mod task;

pub use log_likelihood::{LogLikelihood, ScoreRequest};
