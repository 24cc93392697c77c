//! The `openelm` tool from outside: exit codes, what goes to stdout and what to stderr, and for
//! every failure one line that says what and where.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod cancelled;
#[cfg(target_os = "linux")]
mod full_disk;
mod output;
mod refused;
mod tool;
mod usage;
