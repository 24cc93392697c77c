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
