//! The text of a generation, which grows by tokens and ends at a stop string.

use super::{event::FinishReason, stop::StopMatcher};
use crate::{
    error::Result,
    tokenizer::{Tokenizer, detokenizer::Detokenizer},
};

/// The text of one generation.
#[derive(Debug)]
pub(super) struct GeneratedText {
    text: String,
    /// `None` without a tokenizer: the text stays empty.
    detokenizer: Option<Detokenizer>,
    stops: StopMatcher,
}

impl GeneratedText {
    /// The empty text after `prompt`.
    pub(super) fn new(tokenizer: Option<&Tokenizer>, prompt: &[u32], stops: &[String]) -> Self {
        Self {
            text: String::new(),
            detokenizer: tokenizer.map(|tokenizer| tokenizer.detokenizer(prompt)),
            stops: StopMatcher::new(stops),
        }
    }

    /// The text so far that is final.
    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    /// Adds the token `id`; `end` is the reason if the text ends with it, and an end-of-sequence
    /// token has no text. Returns the text that is final now, and the reason if the text has ended,
    /// which a stop string may change.
    pub(super) fn push(
        &mut self,
        id: u32,
        end: Option<FinishReason>,
    ) -> Result<(String, Option<FinishReason>)> {
        let piece = match &mut self.detokenizer {
            // A vocabulary may have gaps: such an id has no text.
            Some(detokenizer) if end != Some(FinishReason::Eos) && detokenizer.has_token(id) => {
                detokenizer.push(id)?
            }
            _ => String::new(),
        };
        let (mut text, mut stopped) = self.stops.push(&piece);
        if end.is_some() && !stopped {
            let rest = self.detokenizer.as_mut().map(Detokenizer::finish);
            let (tail, in_rest) = self.stops.push(&rest.unwrap_or_default());
            text += &tail;
            stopped = in_rest;
            if !stopped {
                text += &self.stops.finish();
            }
        }
        self.text.push_str(&text);
        let reason = if stopped {
            Some(FinishReason::Stop)
        } else {
            end
        };
        Ok((text, reason))
    }
}
