//! Generation from the bundled tales model: the order of events, what ends a text, sampling, and
//! every input that has to be refused.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod ends;
mod events;
mod models;
mod refused;
mod sampled;
