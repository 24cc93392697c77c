//! Evaluation: log-likelihoods of continuations and texts, perplexity, and tasks of questions.
//!
//! A [`ScoreRequest`] or a text becomes an [`EncodedRequest`], which a [`Scorer`] scores.

mod divergence;
mod documents;
mod encoded_request;
mod log_likelihood;
mod perplexity;
mod score_rows;
mod scorer;
mod standard_error;
pub mod task;
mod trunk;
mod windows;

pub(crate) use divergence::compare_logits;
pub use divergence::{Divergence, check_vocabularies, divergence};
pub(crate) use documents::Documents;
pub use documents::check_documents;
pub use encoded_request::EncodedRequest;
pub use log_likelihood::{LogLikelihood, ScoreRequest};
pub use perplexity::{Perplexity, PerplexityOptions, perplexity};
pub use scorer::Scorer;
pub use windows::WindowOptions;
