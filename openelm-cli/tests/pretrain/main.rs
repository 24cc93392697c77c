//! `openelm pretrain` as a process: resumed runs, several processes, and errors.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod folder;
mod output;
mod ranks;
mod resume;
