//! Decoding of token ids to text, one id at a time.
//!
//! In a tokenizer like LLaMA's a piece is text with U+2581 (`▁`) for a space, one byte (`<0x0A>`),
//! or a special token, which gives no text. The rules follow SentencePiece's `Decode`: consecutive
//! bytes are read as UTF-8, each byte outside a character becomes U+FFFD, and one space is dropped
//! at the start of the text. The Hugging Face tokenizers give the same text for all encoded text;
//! in a run with an invalid byte they also replace the valid bytes by U+FFFD, which cannot be
//! streamed. Any other tokenizer is decoded by the decoder of its file.

mod detokenizer;
mod piece_stream;
mod pieces;
mod window_stream;

pub use detokenizer::Detokenizer;
pub(super) use pieces::Kind;
pub(crate) use pieces::{MAX_PIECES, Pieces};
