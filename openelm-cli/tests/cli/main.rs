//! The `openelm` tool as a process: exit codes, standard output and standard error, and one-line
//! errors.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

mod cancelled;
mod chat;
mod evaluate;
#[cfg(target_os = "linux")]
mod full_disk;
#[cfg(unix)]
mod hub_cache;
mod messages;
mod output;
mod plot;
mod prompt_cache;
mod prompts;
mod refused;
mod score;
#[cfg(unix)]
mod serve;
mod speculation;
#[cfg(unix)]
mod terminal;
mod tool;
mod usage;
