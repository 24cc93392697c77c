//! A vocabulary as a `tokenizer.json` of the Hugging Face tokenizers library, in LLaMA's form.

use std::collections::HashSet;

use serde_json::{Map, Value, json};

use super::vocabulary::{Token, TokenKind, Vocabulary};
use crate::error::Result;

impl Vocabulary {
    /// The text of a `tokenizer.json` that splits text as llama.cpp does: every pair of tokens
    /// whose concatenation is a token is a merge, by descending score. Stated merges are used
    /// instead.
    ///
    /// Embedding rows without a token at the end are omitted.
    ///
    /// # Errors
    ///
    /// [`Error::Tokenizer`](crate::error::Error::Tokenizer) if two tokens have the same text, or a
    /// token is empty or too long.
    pub fn to_tokenizer_json(&self) -> Result<String> {
        self.json()
            .map_err(|problem| crate::error::Error::tokenizer("tokenizer.json", problem))
    }

    fn json(&self) -> Result<String, String> {
        let used = self
            .tokens
            .iter()
            .rposition(|token| token.kind != TokenKind::Unused);
        let tokens = &self.tokens[..used.map_or(0, |last| last + 1)];
        check(tokens)?;
        let vocab: Map<String, Value> = (0u32..)
            .zip(tokens)
            .map(|(id, token)| (token.text.clone(), json!(id)))
            .collect();
        let merges = match &self.merges {
            Some(merges) => merges.clone(),
            None => self.merges_by_score()?,
        };
        let name = |id: u32| tokens.get(id as usize).map(|token| token.text.as_str());
        let bos = name(self.bos_id).unwrap_or("<s>");
        let unk = self.unk_id.and_then(name);
        let space = json!({"String": " "});
        let mut normalizers = vec![json!({"type": "Prepend", "prepend": "▁"})];
        let replace = json!({"type": "Replace", "pattern": space, "content": "▁"});
        let mut decoders = vec![
            json!({"type": "Replace", "pattern": {"String": "▁"}, "content": " "}),
            json!({"type": "ByteFallback"}),
            json!({"type": "Fuse"}),
            json!({"type": "Strip", "content": " ", "start": 1, "stop": 0}),
        ];
        if !self.adds_space {
            normalizers.clear();
            decoders.pop();
        }
        normalizers.push(replace);
        let special = |id: &str, kind: u8| json!({"SpecialToken": {"id": id, "type_id": kind}});
        let text = |id: &str, kind: u8| json!({"Sequence": {"id": id, "type_id": kind}});
        let file = json!({
            "version": "1.0",
            "truncation": null,
            "padding": null,
            "added_tokens": added(tokens),
            "normalizer": {"type": "Sequence", "normalizers": normalizers},
            "pre_tokenizer": null,
            "post_processor": {
                "type": "TemplateProcessing",
                "single": [special(bos, 0), text("A", 0)],
                "pair": [special(bos, 0), text("A", 0), special(bos, 1), text("B", 1)],
                "special_tokens": {bos: {"id": bos, "ids": [self.bos_id], "tokens": [bos]}},
            },
            "decoder": {"type": "Sequence", "decoders": decoders},
            "model": {
                "type": "BPE",
                "dropout": null,
                "unk_token": unk,
                "continuing_subword_prefix": null,
                "end_of_word_suffix": null,
                "fuse_unk": true,
                "byte_fallback": true,
                "ignore_merges": false,
                "vocab": vocab,
                "merges": merges,
            },
        });
        Ok(format!("{file}\n"))
    }
}

fn check(tokens: &[Token]) -> Result<(), String> {
    let mut seen = HashSet::new();
    for (id, token) in tokens.iter().enumerate() {
        if token.text.is_empty() {
            return Err(format!("token {id} is empty"));
        }
        if !seen.insert(&token.text) {
            return Err(format!("two tokens are `{}`", token.text));
        }
    }
    Ok(())
}

/// The tokens that are matched in a text before it is split.
fn added(tokens: &[Token]) -> Vec<Value> {
    let added = (0u32..).zip(tokens).filter(|(_, token)| {
        use TokenKind::{Control, Unknown, UserDefined};
        matches!(token.kind, Control | Unknown | UserDefined)
    });
    let entry = |(id, token): (u32, &Token)| {
        json!({
            "id": id,
            "content": token.text,
            "single_word": false,
            "lstrip": false,
            "rstrip": false,
            "normalized": false,
            "special": token.kind != TokenKind::UserDefined,
        })
    };
    added.map(entry).collect()
}
