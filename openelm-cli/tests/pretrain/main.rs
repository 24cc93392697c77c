//! `openelm pretrain` as a process: resumed runs, several processes, and errors.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

#[cfg(target_os = "linux")]
mod ended;
mod folder;
mod groups;
#[cfg(target_os = "linux")]
mod lost_ranks;
mod output;
mod ranks;
mod resume;
