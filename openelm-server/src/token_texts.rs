//! The texts and bytes of single tokens, in log-probabilities.

use openelm_core::Tokenizer;

/// The bytes of each token of a tokenizer.
#[derive(Debug)]
pub(crate) struct TokenTexts {
    tokenizer: Tokenizer,
    /// By id; `None` if the bytes of a token depend on its neighbours.
    bytes: Option<Vec<Vec<u8>>>,
}

impl TokenTexts {
    pub(crate) fn new(tokenizer: &Tokenizer) -> Self {
        Self {
            tokenizer: tokenizer.clone(),
            bytes: tokenizer.token_bytes(),
        }
    }

    /// The bytes of a token in the middle of a text; the spelling of a special token; none for an id
    /// without a token.
    pub(crate) fn bytes(&self, id: u32) -> Vec<u8> {
        let known = self.bytes.as_ref();
        let own = known.and_then(|all| all.get(id as usize)).cloned();
        let own = own.unwrap_or_else(|| self.tokenizer.decode(&[id]).unwrap_or_default().into());
        if own.is_empty() {
            return self.tokenizer.piece(id).unwrap_or_default().into();
        }
        own
    }

    /// The text of a token. A part of a character is `bytes:\xe2\x80`, as OpenAI has it.
    pub(crate) fn text(&self, id: u32) -> String {
        String::from_utf8(self.bytes(id)).unwrap_or_else(|error| {
            let bytes = error.as_bytes().iter();
            let escaped = bytes.map(|byte| format!("\\x{byte:02x}"));
            escaped.fold("bytes:".into(), |text, byte| text + &byte)
        })
    }
}

#[cfg(test)]
mod tests {
    use openelm_testing::tales;

    use super::*;

    #[test]
    fn texts_of_tokens_make_the_text() {
        let tokenizer = Tokenizer::from_file(tales().join("tokenizer.json")).unwrap();
        let texts = TokenTexts::new(&tokenizer);
        let ids = tokenizer.encode("the king’s é").unwrap();
        let bytes: Vec<u8> = ids.iter().flat_map(|&id| texts.bytes(id)).collect();
        assert_eq!(String::from_utf8(bytes).unwrap(), " the king’s é");
        assert_eq!(texts.text(tokenizer.bos_id()), "<s>");
        let byte = tokenizer.piece_id("<0xE2>").unwrap();
        assert_eq!(texts.text(byte), "bytes:\\xe2");
        assert_eq!(texts.text(u32::MAX), "");
    }
}
