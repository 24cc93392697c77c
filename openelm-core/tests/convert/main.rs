//! `convert`: every format that is read and written, number for number; quantisation; and that
//! whatever goes wrong leaves nothing behind but one line that says what and where.
//!
//! The models are random and made here, a few layers of unequal width.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod cancelled;
mod corenet;
mod formats;
mod gguf;
mod malformed;
mod mixed_bits;
mod models;
#[path = "../torch_file/opcodes.rs"]
#[expect(dead_code, reason = "malformed pickles need more than these tests do")]
mod opcodes;
mod quantized;
mod refused;
mod sizes;
mod torch;
mod verification;
