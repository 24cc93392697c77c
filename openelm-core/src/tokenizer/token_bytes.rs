//! The bytes that a token adds to a text.
//!
//! A token may hold a part of a character, so its text is bytes. They do not depend on other tokens
//! in a tokenizer like LLaMA's, in byte-level BPE and with most decoders, apart from the first space
//! of a text. WordPiece and BPE with suffixes have other rules.

use tokenizers::{DecoderWrapper, pre_tokenizers::byte_level::ByteLevel};

use super::{library::guarded, tokenizer::Tokenizer};

impl Tokenizer {
    /// The bytes that each id adds in the middle of a text, by id; none for special tokens and ids
    /// without a token. `None` if the bytes depend on other tokens.
    pub fn token_bytes(&self) -> Option<Vec<Vec<u8>>> {
        let ids = 0..self.vocab_size() as u32;
        if self.is_llama() {
            return Some(ids.map(|id| self.pieces.bytes(id)).collect());
        }
        // Without a decoder, the library joins tokens by spaces.
        let steps = self.coder.get_decoder().map(steps).unwrap_or_default();
        if !steps_are_local(&steps) {
            return None;
        }
        let is = |kind: fn(&DecoderWrapper) -> bool| steps.iter().any(|step| kind(step));
        let text = |id: &u32| {
            let name = self.pieces.name(*id)?;
            (!self.pieces.is_special(*id)).then_some(name)
        };
        if is(|step| matches!(step, DecoderWrapper::ByteLevel(_))) {
            let byte_of = byte_characters();
            let bytes = |id| bytes_of_characters(text(&id).unwrap_or_default(), &byte_of);
            return Some(ids.map(bytes).collect());
        }
        let has_bytes = is(|step| matches!(step, DecoderWrapper::ByteFallback(_)));
        let decode = |ids: &[u32]| guarded(|| self.coder.decode(ids, true)).unwrap_or_default();
        let is_word = |id: &u32| {
            let name = text(id).unwrap_or_default();
            !name.is_empty() && name.chars().all(char::is_alphanumeric)
        };
        let context: Vec<u32> = ids.clone().find(is_word).into_iter().collect();
        let before = decode(&context);
        let bytes = |id: u32| {
            if text(&id).is_none() {
                return Vec::new();
            }
            if let Some(byte) = self.pieces.byte(id).filter(|_| has_bytes) {
                return vec![byte];
            }
            let both = decode(&[&context[..], &[id]].concat());
            let after = both.strip_prefix(&before).map(str::to_owned);
            after.unwrap_or_else(|| decode(&[id])).into_bytes()
        };
        Some(ids.map(bytes).collect())
    }
}

/// The steps of a decoder.
fn steps(decoder: &DecoderWrapper) -> Vec<&DecoderWrapper> {
    match decoder {
        DecoderWrapper::Sequence(sequence) => {
            sequence.get_decoders().iter().flat_map(steps).collect()
        }
        step => vec![step],
    }
}

/// True if each step's result for a token does not depend on other tokens, apart from the
/// beginning of a text.
fn steps_are_local(steps: &[&DecoderWrapper]) -> bool {
    let mut is_fused = false;
    steps.iter().all(|step| match step {
        DecoderWrapper::ByteLevel(_)
        | DecoderWrapper::Metaspace(_)
        | DecoderWrapper::ByteFallback(_) => true,
        DecoderWrapper::Fuse(_) => {
            is_fused = true;
            true
        }
        // After a fuse, a replacement may cross tokens.
        DecoderWrapper::Replace(_) => !is_fused,
        DecoderWrapper::Strip(strip) => strip.stop == 0,
        _ => false,
    })
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

#[cfg(test)]
mod tests {
    use crate::tokenizer::{
        json::tests::tiny_json,
        library_tests::{all, read},
    };
    use openelm_testing::{Random, random_text};

    /// The bytes of tokens, one after another, are the text after a context.
    #[test]
    fn bytes_of_tokens_make_the_text() {
        let llama = tiny_json();
        let kinds = all().into_iter().chain([("llama", llama)]);
        for (kind, file) in kinds {
            let tokenizer = read(&file).unwrap();
            let Some(bytes) = tokenizer.token_bytes() else {
                assert!(["wordpiece", "suffix"].contains(&kind), "{kind}");
                continue;
            };
            assert!(!["wordpiece", "suffix"].contains(&kind), "{kind}");
            assert_eq!(bytes.len(), tokenizer.vocab_size());
            assert!(bytes[1].is_empty() && bytes[2].is_empty(), "{kind}");
            let context = tokenizer.encode("the cat").unwrap();
            let before = tokenizer.decode(&context).unwrap();
            let mut random = Random(5);
            for _ in 0..300 {
                let more = tokenizer.encode(&random_text(&mut random)).unwrap();
                let whole = tokenizer.decode(&[&context[..], &more].concat()).unwrap();
                let parts: Vec<u8> = more
                    .iter()
                    .flat_map(|&id| bytes[id as usize].clone())
                    .collect();
                let text = String::from_utf8(parts).unwrap();
                assert_eq!(whole, before.clone() + &text, "{kind}");
            }
        }
    }
}
