//! Pre-training of tiny models: document boundaries, micro-batches, averages, resume, 16 bits.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod resume;
mod run;
mod tiny;
mod update;
