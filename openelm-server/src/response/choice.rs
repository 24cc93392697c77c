//! One text of a response.

use openelm_core::{
    generation::{Event, FinishReason, PromptToken, Stats, TokenLogprob},
    tokenizer::Detokenizer,
};

use crate::{api_error::ApiError, app::App, request::TextRequest};

/// A text that grows by events.
pub(super) struct Choice {
    /// Text and first token of the prompt, until the first event; `None` without `echo`.
    echoed: Option<(String, u32)>,
    /// Gives the places of tokens in the text; `None` without log-probabilities.
    detokenizer: Option<Detokenizer>,
    /// Characters of the text so far.
    characters: usize,
}

/// The addition of an event.
#[derive(Debug, Default)]
pub(super) struct Delta {
    pub(super) text: String,
    /// Empty without log-probabilities.
    pub(super) tokens: Vec<ScoredToken>,
    /// `stop` or `length`, with the last event.
    pub(super) finish: Option<&'static str>,
    /// With the last event.
    pub(super) stats: Option<Stats>,
}

/// A token with its log-probability.
#[derive(Debug)]
pub(super) struct ScoredToken {
    pub(super) id: u32,
    /// `None` for the first token of a prompt.
    pub(super) logprob: Option<f32>,
    pub(super) top: Vec<TokenLogprob>,
    /// Characters of the text before the token.
    pub(super) offset: usize,
}

impl Choice {
    /// The text `index` of `request`.
    pub(super) fn new(app: &App, request: &TextRequest, index: usize) -> Result<Self, ApiError> {
        let tokenizer = app.model.tokenizer();
        let prompt = request.prompt_of(index);
        let tokens = prompt.map_or(&[][..], |prompt| &prompt.tokens);
        let echoed = match prompt.filter(|_| request.echo) {
            None => None,
            Some(prompt) => {
                let text = match &prompt.text {
                    Some(text) => text.clone(),
                    None => tokenizer.decode(tokens)?,
                };
                Some((text, tokens.first().copied().unwrap_or_default()))
            }
        };
        let before = if request.echo { &[] } else { tokens };
        let detokenizer = request.logprobs.map(|_| tokenizer.detokenizer(before));
        Ok(Self {
            echoed,
            detokenizer,
            characters: 0,
        })
    }

    /// Takes an event.
    ///
    /// # Errors
    /// If the generation was cancelled.
    pub(super) fn take(&mut self, event: Event) -> Result<Delta, ApiError> {
        let mut delta = Delta::default();
        if let Some((text, first)) = self.echoed.take() {
            delta.text = text;
            delta.tokens.extend(self.scored(first, None, Vec::new()));
        }
        match event {
            Event::Prefill { logprobs, .. } => {
                for PromptToken {
                    id,
                    logprob,
                    top_logprobs,
                } in logprobs
                {
                    let token = self.scored(id, Some(logprob), top_logprobs);
                    delta.tokens.extend(token);
                }
            }
            Event::Token(token) => {
                delta.text += &token.text;
                let scored = self.scored(token.id, token.logprob, token.top_logprobs);
                delta.tokens.extend(scored);
            }
            Event::Finished { reason, stats } => {
                delta.finish = Some(match reason {
                    FinishReason::Eos | FinishReason::Stop => "stop",
                    FinishReason::Length | FinishReason::Context => "length",
                    FinishReason::Cancelled => {
                        return Err(openelm_core::Error::Cancelled.into());
                    }
                });
                delta.stats = Some(stats);
            }
        }
        Ok(delta)
    }

    /// The token at the end of the text; `None` without log-probabilities.
    fn scored(
        &mut self,
        id: u32,
        logprob: Option<f32>,
        top: Vec<TokenLogprob>,
    ) -> Option<ScoredToken> {
        let detokenizer = self.detokenizer.as_mut()?;
        let offset = self.characters;
        // An id without a token has no text.
        let text = detokenizer.push(id).unwrap_or_default();
        self.characters += text.chars().count();
        Some(ScoredToken {
            id,
            logprob,
            top,
            offset,
        })
    }
}

impl Delta {
    /// Appends a later addition.
    pub(super) fn extend(&mut self, later: Self) {
        self.text += &later.text;
        self.tokens.extend(later.tokens);
        self.finish = later.finish.or(self.finish);
        self.stats = later.stats.or(self.stats);
    }

    /// True if it adds nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.text.is_empty() && self.tokens.is_empty() && self.finish.is_none()
    }
}
