//! `openelm finetune`, `fuse` and `generate --adapter` as a user runs them, on the bundled model.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod adapters;
mod errors;
mod folder;
mod resume;
