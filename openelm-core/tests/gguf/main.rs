//! GGUF files: reading, writing, and quantisation equal to llama.cpp's. Reading any file gives a
//! value or a one-line error with the key or tensor.
//!
//! `fixtures/gguf.json` comes from `parity/gguf_fixtures.py`, which uses llama.cpp's Python
//! package.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

mod bytes;
mod files;
mod malformed;
mod model;
mod tokenizer;
