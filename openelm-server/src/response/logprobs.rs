//! Log-probabilities in the shapes of completions and of chat.

use std::collections::HashSet;

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::choice::ScoredToken;
use crate::token_texts::TokenTexts;

/// Stands for negative infinity, which JSON lacks, as in vLLM.
const LOWEST: f32 = -9999.0;

/// `logprobs` of a completion: four lists with an entry for each token.
#[derive(Debug, Serialize)]
pub(super) struct CompletionLogprobs {
    tokens: Vec<String>,
    token_logprobs: Vec<Option<f32>>,
    top_logprobs: Vec<Option<TopLogprobs>>,
    text_offset: Vec<usize>,
}

/// Log-probabilities by the texts of tokens, without a text twice.
#[derive(Debug)]
struct TopLogprobs(Vec<(String, f32)>);

/// `logprobs` of a chat answer.
#[derive(Debug, Serialize)]
pub(super) struct ChatLogprobs {
    content: Vec<ChatToken>,
    refusal: Option<String>,
}

#[derive(Debug, Serialize)]
struct ChatToken {
    #[serde(flatten)]
    own: ChatCandidate,
    top_logprobs: Vec<ChatCandidate>,
}

#[derive(Debug, Serialize)]
struct ChatCandidate {
    token: String,
    logprob: f32,
    bytes: Vec<u8>,
}

impl CompletionLogprobs {
    /// The `tokens` with `top` most likely ones each.
    pub(super) fn new(tokens: &[ScoredToken], top: usize, texts: &TokenTexts) -> Self {
        let of_token = |token: &ScoredToken| {
            let logprob = token.logprob?;
            let likeliest = token.top.iter().take(top);
            let likeliest = likeliest.map(|other| (other.id, other.logprob));
            // The token itself comes last, if it is not among them.
            let all = likeliest.chain([(token.id, logprob)]);
            let mut seen = HashSet::new();
            let all = all.map(|(id, logprob)| (texts.text(id), finite(logprob)));
            // Of two tokens with one text, the most likely is kept.
            let unique = all.filter(|(text, _)| seen.insert(text.clone()));
            Some(TopLogprobs(unique.collect()))
        };
        Self {
            tokens: tokens.iter().map(|token| texts.text(token.id)).collect(),
            token_logprobs: tokens.iter().map(|t| t.logprob.map(finite)).collect(),
            top_logprobs: tokens.iter().map(of_token).collect(),
            text_offset: tokens.iter().map(|token| token.offset).collect(),
        }
    }
}

impl ChatLogprobs {
    /// The `tokens` with `top` most likely ones each, without the token `end`, which has no text.
    pub(super) fn new(
        tokens: &[ScoredToken],
        top: usize,
        end: Option<u32>,
        texts: &TokenTexts,
    ) -> Self {
        let candidate = |id: u32, logprob: f32| ChatCandidate {
            token: texts.text(id),
            logprob: finite(logprob),
            bytes: texts.bytes(id),
        };
        let content = tokens.iter().filter(|token| Some(token.id) != end);
        let content = content.map(|token| ChatToken {
            own: candidate(token.id, token.logprob.unwrap_or(f32::NEG_INFINITY)),
            top_logprobs: token
                .top
                .iter()
                .take(top)
                .map(|other| candidate(other.id, other.logprob))
                .collect(),
        });
        Self {
            content: content.collect(),
            refusal: None,
        }
    }
}

impl Serialize for TopLogprobs {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (text, logprob) in &self.0 {
            map.serialize_entry(text, logprob)?;
        }
        map.end()
    }
}

fn finite(logprob: f32) -> f32 {
    logprob.max(LOWEST)
}

#[cfg(test)]
mod tests {
    use openelm_core::{Tokenizer, generation::TokenLogprob};
    use openelm_testing::tales;
    use serde_json::{Value, json};

    use super::*;

    fn scored(id: u32, logprob: Option<f32>, top: &[(u32, f32)]) -> ScoredToken {
        let top = top
            .iter()
            .map(|&(id, logprob)| TokenLogprob { id, logprob });
        ScoredToken {
            id,
            logprob,
            top: top.collect(),
            offset: 0,
        }
    }

    fn texts() -> (Tokenizer, TokenTexts) {
        let tokenizer = Tokenizer::from_file(tales().join("tokenizer.json")).unwrap();
        let texts = TokenTexts::new(&tokenizer);
        (tokenizer, texts)
    }

    #[test]
    fn equal_texts_keep_the_most_likely_token() {
        let (tokenizer, texts) = texts();
        let id = |piece: &str| tokenizer.piece_id(piece).unwrap();
        // A piece, and the byte of the same text.
        let (piece, byte, other) = (id("a"), id("<0x61>"), id("b"));
        assert_eq!(texts.text(piece), texts.text(byte));
        let top = [(byte, -0.5), (other, -1.5), (piece, -2.5)];
        let tokens = [
            scored(1, None, &[]),
            scored(byte, Some(-0.5), &top),
            scored(piece, Some(-2.5), &top),
            scored(other, Some(-1.5), &top[..1]),
            scored(other, Some(f32::NEG_INFINITY), &[]),
        ];
        let found = CompletionLogprobs::new(&tokens, 3, &texts);
        let found: Value = serde_json::to_value(&found).unwrap();
        let best = json!({ "a": -0.5, "b": -1.5 });
        let lowest = json!({ "b": -9999.0 });
        assert_eq!(
            found["top_logprobs"],
            json!([null, best, best, best, lowest])
        );
        assert_eq!(
            found["token_logprobs"],
            json!([null, -0.5, -2.5, -1.5, -9999.0])
        );
        assert_eq!(found["tokens"], json!(["<s>", "a", "a", "b", "b"]));
    }

    #[test]
    fn the_end_token_is_not_part_of_an_answer() {
        let (tokenizer, texts) = texts();
        let eos = tokenizer.eos_id();
        let tokens = [scored(5, Some(-1.0), &[]), scored(eos, Some(-2.0), &[])];
        let count = |end| {
            let logprobs = ChatLogprobs::new(&tokens, 0, end, &texts);
            logprobs.content.len()
        };
        assert_eq!((count(Some(eos)), count(None)), (1, 2));
    }
}
