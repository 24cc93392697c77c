//! Token ids to text, one id at a time.
//!
//! A piece is text with U+2581 (`▁`) for a space, one byte (`<0x0A>`), or a special token, which
//! gives no text. The rules are those of SentencePiece's `Decode`: bytes in a row are read as
//! UTF-8, each byte that belongs to no character becomes U+FFFD, and one space is dropped at the
//! very start of the text, nowhere else. The Hugging Face tokenizers give the same text for
//! everything that they encode; of a run with a bad byte in it they turn the good bytes into
//! U+FFFD too, which could not be streamed.

mod detokenizer;
mod pieces;

pub use detokenizer::Detokenizer;
pub(crate) use pieces::{MAX_PIECES, Pieces};
