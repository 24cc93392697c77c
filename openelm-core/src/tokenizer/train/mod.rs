//! Trains a tokenizer of LLaMA's kind: byte-pair encoding (arXiv 1508.07909) over characters,
//! with the 256 bytes as pieces for what is no character of the vocabulary.
//!
//! Ids: `<unk>` 0, `<s>` 1, `</s>` 2, `<0x00>` to `<0xFF>` 3 to 258, the alphabet by code point,
//! then the merged pieces in the order in which they were merged. As in LLaMA's, a piece has at
//! most 16 characters and never a space inside, digits stand alone, and control characters, the
//! newline among them, are bytes.

mod merges;
mod training;
mod words;

pub use training::{TokenizerReport, TokenizerTraining};
