//! Models by name: downloads from a server in this process that speaks the Hub's protocol, on one
//! port, and gives large files from a second one, as the Hub's CDN does.

#![cfg(unix)]
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

mod cache;
mod commands;
mod faults;
mod interrupted;
mod refused;
mod secure;
mod server;
mod uploads;
