//! Fine-tuning and pre-training runs in their folders: options that may change on resume,
//! locks, and runs that ended early.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod folder;
mod interrupted;
mod resume;
mod tiny;
