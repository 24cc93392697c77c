//! Fine-tuning and pre-training runs in their folders: options that may change on resume, and
//! locks.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod folder;
mod resume;
mod tiny;
