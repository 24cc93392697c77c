//! Pre-training of tiny models: documents kept apart, updates in parts, averages, resume, 16 bits.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod resume;
mod run;
mod tiny;
mod update;
