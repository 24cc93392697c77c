//! Generation with the bundled tales model: order of events, ends, sampling, and invalid inputs.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod batch;
mod constrained;
mod ends;
mod events;
mod kv_cache;
mod models;
mod non_finite;
mod options;
mod prefix_cache;
mod prompt_cache_file;
mod prompt_logprobs;
mod refused;
mod sampled;
mod speculation;
