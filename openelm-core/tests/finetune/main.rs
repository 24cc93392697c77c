//! Fine-tuning on tiny models: what is trained, its gradients, and adapters on a loaded model.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod adapters;
mod gradients;
mod run;
mod tiny;
