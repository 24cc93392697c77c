//! The bytes that a token adds to a text.
//!
//! A token may hold a part of a character, so its text is bytes. In a tokenizer like LLaMA's and in
//! byte-level BPE they do not depend on the context, apart from the first space of a text; other
//! decoders are asked for the token after another one.

use tokenizers::{DecoderWrapper, pre_tokenizers::byte_level::ByteLevel};

use super::{detokenizer::Pieces, library::guarded, tokenizer::Tokenizer};

impl Tokenizer {
    /// The bytes that each id adds in the middle of a text, by id; none for special tokens and ids
    /// without a token.
    pub(crate) fn token_bytes(&self) -> Vec<Vec<u8>> {
        let ids = 0..self.vocab_size() as u32;
        let pieces: &Pieces = &self.pieces;
        if self.is_llama() {
            return ids.map(|id| pieces.bytes(id)).collect();
        }
        if self.coder.get_decoder().is_some_and(is_byte_level) {
            let byte_of = byte_characters();
            let text = |id| pieces.name(id).filter(|_| !pieces.is_special(id));
            return ids
                .map(|id| bytes_of_characters(text(id).unwrap_or_default(), &byte_of))
                .collect();
        }
        let decode = |ids: &[u32]| guarded(|| self.coder.decode(ids, true)).unwrap_or_default();
        let is_word = |id: &u32| {
            let text = pieces.name(*id).unwrap_or_default();
            !pieces.is_special(*id) && !text.is_empty() && text.chars().all(char::is_alphanumeric)
        };
        let context: Vec<u32> = ids.clone().find(is_word).into_iter().collect();
        let before = decode(&context);
        ids.map(|id| {
            if let Some(byte) = pieces.byte(id) {
                return vec![byte];
            }
            if pieces.is_special(id) {
                return Vec::new();
            }
            let both = decode(&[&context[..], &[id]].concat());
            match both.strip_prefix(&before) {
                Some(text) => text.into(),
                None => decode(&[id]).into(),
            }
        })
        .collect()
    }
}

/// True if the decoder is, or has, byte-level BPE's.
fn is_byte_level(decoder: &DecoderWrapper) -> bool {
    match decoder {
        DecoderWrapper::ByteLevel(_) => true,
        DecoderWrapper::Sequence(sequence) => sequence.get_decoders().iter().any(is_byte_level),
        _ => false,
    }
}

/// The bytes of a byte-level piece; a piece with another character stands for itself.
fn bytes_of_characters(piece: &str, byte_of: &[Option<u8>]) -> Vec<u8> {
    let bytes = piece.chars().map(|c| *byte_of.get(c as usize)?);
    let bytes: Option<Vec<u8>> = bytes.collect();
    bytes.unwrap_or_else(|| piece.into())
}

/// The byte of each character of GPT-2's alphabet, by code point: a printable Latin-1 character
/// stands for its own byte, and those from U+0100 for the other bytes in their order.
fn byte_characters() -> Vec<Option<u8>> {
    let alphabet = ByteLevel::alphabet();
    let mut byte_of = vec![None; 512];
    let mut next = 256;
    for byte in 0..=u8::MAX {
        let mut place = usize::from(byte);
        if !alphabet.contains(&char::from(byte)) {
            place = next;
            next += 1;
        }
        if let Some(entry) = byte_of.get_mut(place) {
            *entry = Some(byte);
        }
    }
    byte_of
}
