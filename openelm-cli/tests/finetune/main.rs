//! `openelm finetune`, `fuse` and `generate --adapter` as processes, with the bundled model.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod adapters;
mod errors;
mod folder;
mod outputs;
mod resume;
