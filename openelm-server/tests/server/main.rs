//! The server over real sockets, with the bundled model.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod access;
mod adapters;
mod chat;
mod client;
mod completions;
mod echo;
mod limits;
mod mutated;
mod page;
mod refused;
mod running;
mod shutdown;
mod tokens;
