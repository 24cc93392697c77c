//! Encoding of text that continues other text.
//!
//! SentencePiece prepends a space to every text that it encodes, and removes it on decoding. In the
//! middle of a text this space would remain, so a completion is encoded without it.

use super::{sections::Prefix, tokenizer::Tokenizer};
use crate::error::Result;

impl Tokenizer {
    /// The ids of `text` after the text of `context`, without BOS and EOS.
    ///
    /// The ids of `context` do not change: [`decode`](Self::decode) of both together is the text
    /// of `context` followed by `text`. After a context without text, such as BOS alone, this is
    /// [`encode`](Self::encode).
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::error::Error::Tokenizer) if `context` has an id that is not in
    /// the vocabulary, or the vocabulary lacks a piece that its merges need.
    pub fn encode_continuation(&self, context: &[u32], text: &str) -> Result<Vec<u32>> {
        if self.decode(context)?.is_empty() {
            return self.encode(text);
        }
        self.ids(text, Prefix::None)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use super::*;
    use crate::tokenizer::json::tests::tiny_json;
    use crate::tokenizer::sentencepiece::model::tests::tiny_model;
    use openelm_testing::{Random, random_text};

    fn from_json(file: &Value) -> Tokenizer {
        Tokenizer::from_bytes(Path::new("tokenizer.json"), file.to_string().as_bytes()).unwrap()
    }

    /// The tiny tokenizer with a Metaspace instead of normalizers, as in newer files.
    fn with_metaspace(scheme: &str) -> Tokenizer {
        let mut file = tiny_json();
        file["normalizer"] = Value::Null;
        file["pre_tokenizer"] = json!({"type": "Metaspace", "replacement": "▁",
            "prepend_scheme": scheme, "split": false});
        from_json(&file)
    }

    fn all() -> Vec<Tokenizer> {
        vec![
            from_json(&tiny_json()),
            Tokenizer::from_bytes(Path::new("tokenizer.model"), &tiny_model()).unwrap(),
            with_metaspace("first"),
            with_metaspace("always"),
        ]
    }

    #[test]
    fn continuation_keeps_spaces() {
        for tokenizer in all() {
            let context = tokenizer.encode_prompt("the").unwrap();
            assert_eq!(context, [1, 261]);
            let after = |text: &str| tokenizer.encode_continuation(&context, text).unwrap();
            assert_eq!(after(" the"), [261]);
            assert_eq!(after("the"), [266, 260]);
            assert_eq!(after("</s> the"), [2, 261]);
            assert_eq!(after(""), [0_u32; 0]);
        }
    }

    #[test]
    fn continuation_of_no_text_is_plain_text() {
        for tokenizer in all() {
            assert_eq!(tokenizer.encode_continuation(&[1], "the").unwrap(), [261]);
            assert_eq!(tokenizer.encode_continuation(&[], "the").unwrap(), [261]);
            let message = tokenizer.encode_continuation(&[300], "a").unwrap_err();
            assert!(message.to_string().contains("no piece has the id 300"));
        }
    }

    #[test]
    fn context_and_continuation_decode_to_both_texts() {
        let mut random = Random(11);
        for tokenizer in all() {
            for _ in 0..1_000 {
                let (left, right) = (random_text(&mut random), random_text(&mut random));
                let context = tokenizer.encode_prompt(&left).unwrap();
                let more = tokenizer.encode_continuation(&context, &right).unwrap();
                let before = tokenizer.decode(&context).unwrap();
                if before.is_empty() {
                    assert_eq!(more, tokenizer.encode(&right).unwrap());
                } else {
                    let whole = tokenizer.decode(&[context, more].concat()).unwrap();
                    assert_eq!(whole, before + &right);
                }
            }
        }
    }
}
