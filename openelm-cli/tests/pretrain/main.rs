//! `openelm pretrain` as a user runs it: killed and resumed, on several processes, and what it
//! refuses.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod folder;
mod output;
mod ranks;
mod resume;
