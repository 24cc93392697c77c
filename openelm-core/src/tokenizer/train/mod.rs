//! Trains a tokenizer like LLaMA's: byte-pair encoding (arXiv 1508.07909) over characters, with the
//! 256 bytes as pieces for characters outside the vocabulary.
//!
//! Ids: `<unk>` 0, `<s>` 1, `</s>` 2, `<0x00>` to `<0xFF>` 3 to 258, the alphabet by code point,
//! then the merged pieces in the order of their merges. As in LLaMA's tokenizer, a piece has at
//! most 16 characters and a space only at its start, each digit is a piece, and control characters,
//! including the newline, are bytes.

mod merges;
mod training;
mod words;

pub use training::{TokenizerReport, TokenizerTraining};
