//! Fine-tuning of tiny models: trained parameters, gradients, and adapters on a loaded model.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod adapters;
mod gradients;
mod non_finite;
mod packings;
mod pauses;
mod run;
mod tiny;
