//! The contents of a tokenizer file like LLaMA's, and the BPE coder built from it.

use tokenizers::{
    AddedToken, DecoderWrapper, ModelWrapper, NormalizerWrapper, PostProcessorWrapper,
    PreTokenizerWrapper, TokenizerImpl,
    models::bpe::{BPE, Merges, Vocab},
};

/// Encodes text; the [`Detokenizer`](crate::tokenizer::detokenizer::Detokenizer) decodes.
pub(super) type Coder = TokenizerImpl<
    ModelWrapper,
    NormalizerWrapper,
    PreTokenizerWrapper,
    PostProcessorWrapper,
    DecoderWrapper,
>;

/// The contents of a tokenizer file like LLaMA's, of either format.
pub(crate) struct TokenizerSpec {
    pub(crate) vocab: Vocab,
    pub(crate) merges: Merges,
    pub(crate) unk: Option<String>,
    pub(crate) fuse_unk: bool,
    pub(crate) ignore_merges: bool,
    /// Names of BOS and EOS.
    pub(crate) bos: String,
    pub(crate) eos: String,
    /// Special tokens of the vocabulary in addition to BOS, EOS and the unknown piece.
    pub(crate) controls: Vec<String>,
    /// Tokens that are matched in the text before it is split into pieces, by id.
    pub(crate) added: Vec<(u32, AddedToken)>,
    pub(crate) normalizer: Option<NormalizerWrapper>,
    pub(crate) pre_tokenizer: Option<PreTokenizerWrapper>,
    pub(crate) drops_first_space: bool,
}

impl TokenizerSpec {
    /// Refuses a vocabulary without a piece for each byte.
    pub(super) fn check_bytes(&self) -> Result<(), String> {
        for byte in 0..=u8::MAX {
            let piece = format!("<0x{byte:02X}>");
            if !self.vocab.contains_key(&piece) {
                return Err(format!(
                    "the piece `{piece}` is missing: no byte fallback without it"
                ));
            }
        }
        Ok(())
    }

    /// Refuses contents that the coder cannot use.
    pub(super) fn check(&self) -> Result<(), String> {
        if let Some(unk) = self
            .unk
            .as_ref()
            .filter(|unk| !self.vocab.contains_key(*unk))
        {
            return Err(format!("the unknown piece `{unk}` is missing"));
        }
        // The BPE builder assumes that no merge is longer than the longest piece.
        let longest = self.vocab.keys().map(String::len).max().unwrap_or(0);
        match self
            .merges
            .iter()
            .find(|(left, right)| left.len() + right.len() > longest)
        {
            Some((left, right)) => Err(format!(
                "merge `{left} {right}`: `{left}{right}` is not a piece"
            )),
            None => Ok(()),
        }
    }

    /// The added tokens, and the special pieces that the file does not list as added tokens.
    pub(super) fn added_tokens(&self) -> Vec<(u32, AddedToken)> {
        let mut tokens = self.added.clone();
        let specials = [&self.bos, &self.eos]
            .into_iter()
            .chain(&self.unk)
            .chain(&self.controls);
        for name in specials {
            let Some(&id) = self.vocab.get(name) else {
                continue;
            };
            if !tokens.iter().any(|(_, token)| token.content == *name) {
                tokens.push((id, AddedToken::from(name.as_str(), true)));
            }
        }
        tokens
    }

    /// Builds the coder; `tokens` are the result of [`added_tokens`](Self::added_tokens).
    pub(super) fn into_coder(mut self, tokens: &[(u32, AddedToken)]) -> Result<Coder, String> {
        // The library assigns ids to new tokens in their order; a vocabulary states ids.
        for (id, token) in tokens {
            self.vocab.entry(token.content.clone()).or_insert(*id);
        }
        let mut bpe = BPE::builder()
            .vocab_and_merges(self.vocab, self.merges)
            // A whole prompt is one word, which would be cached and rarely reused.
            .cache_capacity(0)
            .fuse_unk(self.fuse_unk)
            .ignore_merges(self.ignore_merges)
            .byte_fallback(true);
        if let Some(unk) = self.unk {
            bpe = bpe.unk_token(unk);
        }
        let bpe = bpe.build().map_err(|error| error.to_string())?;
        let mut coder = Coder::new(bpe.into());
        coder
            .with_normalizer(self.normalizer)
            .map_err(|error| error.to_string())?;
        coder.with_pre_tokenizer(self.pre_tokenizer);
        let tokens = tokens.iter().map(|(_, token)| token.clone());
        coder
            .add_tokens(tokens)
            .map_err(|error| error.to_string())?;
        Ok(coder)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::{Value, json};

    use crate::error::{Error, Result};
    use crate::tokenizer::json::tests::tiny_json;
    use crate::tokenizer::sentencepiece::model::tests::tiny_model;
    use crate::tokenizer::tokenizer::Tokenizer;

    fn read(bytes: &[u8]) -> Result<Tokenizer> {
        Tokenizer::from_bytes(Path::new("t"), bytes)
    }

    fn problem(bytes: &[u8]) -> String {
        match read(bytes) {
            Err(Error::Tokenizer { path, problem }) if path == Path::new("t") => problem,
            other => panic!("expected Error::Tokenizer, found {other:?}"),
        }
    }

    fn edited(edit: impl FnOnce(&mut Value)) -> Vec<u8> {
        let mut file = tiny_json();
        edit(&mut file);
        file.to_string().into_bytes()
    }

    fn remove(name: &str) -> Vec<u8> {
        edited(|file| {
            file["model"]["vocab"].as_object_mut().unwrap().remove(name);
        })
    }

    #[test]
    fn rejects_truncation_at_every_length() {
        for bytes in [tiny_model(), tiny_json().to_string().into_bytes()] {
            assert!(read(&bytes).is_ok());
            for length in 0..bytes.len() {
                assert!(!problem(&bytes[..length]).is_empty());
            }
        }
    }

    #[test]
    fn damaged_file_never_panics() {
        let mut state = 1u64;
        let mut step = |limit: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) as usize % limit
        };
        let mut readable = 0;
        for bytes in [tiny_model(), tiny_json().to_string().into_bytes()] {
            for _ in 0..4_000 {
                let mut bytes = bytes.clone();
                for _ in 0..=step(3) {
                    let at = step(bytes.len());
                    bytes[at] ^= 1 << step(8);
                }
                if let Ok(tokenizer) = read(&bytes) {
                    readable += 1;
                    // A tokenizer unlike LLaMA's may lack a piece for a character.
                    let encoded = tokenizer.encode_prompt("the cat</s> in 🦙");
                    assert!(encoded.is_ok() || !tokenizer.is_llama());
                    let decoded = tokenizer.decode(&encoded.unwrap_or_default());
                    assert!(decoded.is_ok() || !tokenizer.is_llama());
                } else {
                    assert!(!problem(&bytes).is_empty());
                }
            }
        }
        assert!((100..7_900).contains(&readable), "{readable}");
        for length in [0, 1, 2, 7, 100, 5_000] {
            let noise: Vec<u8> = (0..length).map(|_| step(256) as u8).collect();
            assert!(!problem(&noise).is_empty());
            assert!(!problem(&vec![0; length]).is_empty());
        }
    }

    #[test]
    fn rejects_files_that_are_not_tokenizers() {
        for (bytes, expected) in [
            (&b""[..], "the file is empty"),
            (
                b"hello",
                "neither a tokenizer.json nor an undamaged SentencePiece model",
            ),
            (b"{}", "missing field `model`"),
            (b" {\"model\": 1}", "invalid type"),
        ] {
            assert!(problem(bytes).contains(expected), "{}", problem(bytes));
        }
    }

    #[test]
    fn rejects_inconsistent_vocabularies() {
        let merge = |left: &str, right: &str| {
            edited(|file| file["model"]["merges"] = json!([[left, right]]))
        };
        let added =
            |token: Value| edited(|file| file["added_tokens"].as_array_mut().unwrap().push(token));
        let cases = [
            (remove("<unk>"), "the unknown piece `<unk>` is missing"),
            // Longer than any piece: the library's builder would index out of range.
            (merge("<0x41>", "<0x42>"), "`<0x41><0x42>` is not a piece"),
            (merge("h", "h"), "`hh` out of vocabulary"),
            (merge("h", "z"), "`z` out of vocabulary"),
            (
                edited(|file| file["model"]["vocab"]["c"] = json!(271)),
                "the same id 271",
            ),
            (
                edited(|file| file["model"]["vocab"]["c"] = json!(4_000_000_000u32)),
                "at most 1048576",
            ),
            (
                edited(|file| file["model"]["vocab"]["c"] = json!(-1)),
                "invalid value",
            ),
            (
                added(json!({"id": 7, "content": "the"})),
                "`<0x04>` and `the` have the same id 7",
            ),
            (added(json!({"id": 7, "content": "cat"})), "same id 7"),
        ];
        for (bytes, expected) in cases {
            let problem = problem(&bytes);
            assert!(problem.contains(expected), "{problem}: expected {expected}");
        }
    }

    #[test]
    fn added_tokens_extend_the_vocabulary() {
        let bytes = edited(|file| {
            let tokens = file["added_tokens"].as_array_mut().unwrap();
            tokens.push(json!({"id": 273, "content": "<pad>", "special": true}));
            tokens.push(json!({"id": 274, "content": "<user>", "special": false}));
        });
        let tokenizer = read(&bytes).unwrap();
        assert_eq!(tokenizer.vocab_size(), 275);
        assert_eq!(tokenizer.encode("<pad>the<user>").unwrap(), [273, 261, 274]);
        assert_eq!(tokenizer.decode(&[273, 261, 274]).unwrap(), "the<user>");
    }

    #[test]
    fn token_beyond_the_model_is_refused_in_a_text_only() {
        let bytes = edited(|file| {
            let tokens = file["added_tokens"].as_array_mut().unwrap();
            tokens.push(json!({"id": 300, "content": "<pad>", "special": true}));
        });
        let tokenizer = read(&bytes).unwrap();
        assert_eq!(tokenizer.encode("<pad>the").unwrap(), [300, 261]);
        let tokenizer = tokenizer.with_model_vocab(273).unwrap();
        assert_eq!(tokenizer.encode_prompt("the").unwrap(), [1, 261]);
        let expected =
            "t: the text has the token `<pad>`, id 300; the model's vocabulary has 273 ids";
        for refused in [
            tokenizer.encode("the<pad>"),
            tokenizer.encode_prompt("<pad>"),
            tokenizer.encode_continuation(&[1, 261], "the <pad>"),
            tokenizer
                .clone()
                .with_model_vocab(300)
                .unwrap()
                .encode("<pad>"),
        ] {
            let message = refused.unwrap_err().to_string();
            assert_eq!(message.replace("300 ids", "273 ids"), expected);
        }
        let message = tokenizer.with_model_vocab(2).unwrap_err().to_string();
        assert!(message.contains("token `</s>`, id 2"), "{message}");
    }

    #[test]
    fn unnamed_bos_is_special_token_1() {
        let renamed = |special: bool| {
            edited(|file| {
                let vocab = file["model"]["vocab"].as_object_mut().unwrap();
                vocab.remove("<s>");
                vocab.insert("<begin>".to_owned(), json!(1));
                file["added_tokens"][1]["content"] = json!("<begin>");
                file["added_tokens"][1]["special"] = json!(special);
            })
        };
        let tokenizer = read(&renamed(true)).unwrap();
        assert_eq!((tokenizer.bos_id(), tokenizer.eos_id()), (1, 2));
        // Without BOS, a text begins with EOS.
        assert_eq!(read(&renamed(false)).unwrap().bos_id(), 2);
    }

    #[test]
    fn special_pieces_need_no_added_token() {
        let tokenizer = read(&edited(|file| file["added_tokens"] = json!([]))).unwrap();
        assert_eq!(tokenizer.encode_prompt("<s>the</s>").unwrap(), [1, 261, 2]);
        assert_eq!(tokenizer.decode(&[1, 261, 0, 2]).unwrap(), "the");
    }
}
