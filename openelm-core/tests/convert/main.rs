//! `convert`: all input and output formats with exact values, quantisation, and errors. A failed
//! conversion leaves no files and gives a one-line error with file and cause.
//!
//! The models are random, generated here, and have a few layers of unequal width.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

mod averages;
mod cancelled;
mod corenet;
mod corenet_export;
mod formats;
mod gguf;
mod learned;
mod malformed;
mod mixed_bits;
mod models;
#[path = "../torch_file/opcodes.rs"]
#[expect(dead_code, reason = "shared with the tests of malformed pickles")]
mod opcodes;
mod padding_rows;
mod quantized;
mod refused;
mod sizes;
mod torch;
mod verification;
