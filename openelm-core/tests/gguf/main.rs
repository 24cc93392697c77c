//! GGUF files: what is written is read back, quantised as llama.cpp quantises, and whatever lies
//! in a file, reading it ends in a value or in one line that names the key or the tensor.
//!
//! `fixtures/gguf.json` is made by `parity/gguf_fixtures.py` with llama.cpp's Python package.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

mod bytes;
mod files;
mod malformed;
mod model;
mod tokenizer;
