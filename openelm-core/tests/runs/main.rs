//! Runs of fine-tuning and pre-training in their folders: what may change when one is resumed, and
//! who may train where.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod folder;
mod resume;
mod tiny;
