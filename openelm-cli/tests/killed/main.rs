//! Long commands that end early: kills at random moments, signals, and lost output.
//!
//! `OPENELM_KILLS` is the number of kills of each command, `OPENELM_KILL_SEED` repeats the moments
//! of an earlier run.
#![cfg(unix)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod commands;
mod kills;
mod output;
mod signals;
