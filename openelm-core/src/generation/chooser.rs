//! The choice of the next token: the sampler, and the constraint of a structured text.

use std::collections::VecDeque;

use mlx_rs::Array;

use super::{
    options::GenerateOptions,
    sampling::{Sampler, SamplerVocabulary},
    step::Step,
};
use crate::{
    constraint::{AtLimit, Constraint},
    error::{Error, Result},
    tokenizer::Tokenizer,
};

/// Number of the last tokens in which a text may be closed: before, its end is not computed.
const CLOSING_WINDOW: usize = 64;

/// Tokens left when a text is closed: the next token may make its end longer.
const CLOSING_MARGIN: usize = 8;

/// The state of one text's choices. A clone makes the same choices as the original.
#[derive(Debug, Clone)]
pub(super) struct Chooser {
    sampler: Sampler,
    /// Limit of the ids that may be drawn, exclusive.
    pieces: usize,
    constraint: Option<Constraint>,
    at_limit: AtLimit,
    /// The tokens that close the text.
    closing: VecDeque<u32>,
}

impl Chooser {
    /// The choices of ids below `pieces` after `prompt`. The first of `end_tokens` is the model's.
    pub(super) fn new(
        options: &GenerateOptions,
        tokenizer: Option<&Tokenizer>,
        prompt: &[u32],
        pieces: usize,
        end_tokens: &[u32],
    ) -> Result<Self> {
        let vocabulary = SamplerVocabulary {
            size: pieces,
            tokenizer,
            end_tokens,
        };
        Ok(Self {
            sampler: Sampler::new(&options.sampling, &vocabulary, prompt)?,
            pieces,
            constraint: constraint(options, tokenizer, prompt, end_tokens)?,
            at_limit: options.at_limit,
            closing: VecDeque::new(),
        })
    }

    pub(super) fn seed(&self) -> u64 {
        self.sampler.seed()
    }

    /// The sampler alone.
    pub(super) fn sampler(&self) -> &Sampler {
        &self.sampler
    }

    /// True if the next choice needs the tokens before it on the host.
    pub(super) fn reads_history(&self) -> bool {
        self.constraint.is_some() || self.sampler.reads_history()
    }

    /// Takes a token that was read, before the next choice.
    ///
    /// # Errors
    /// [`Error::Option`] if the constraint does not allow it.
    pub(super) fn accept(&mut self, id: u32) -> Result<()> {
        if self.sampler.reads_history() {
            self.sampler.accept(id);
        }
        match &mut self.constraint {
            Some(constraint) => constraint.accept(id),
            None => Ok(()),
        }
    }

    /// The step that chooses a token from `logits`, f32 `[V]`. `left` tokens may follow, this one
    /// included.
    pub(super) fn step(
        &mut self,
        options: &GenerateOptions,
        logits: &Array,
        left: usize,
    ) -> Result<Step> {
        let allowed = self.allowed(left)?;
        Step::new(logits, allowed.as_ref(), &mut self.sampler, options)
    }

    /// The error of a step whose exclusions leave no token.
    pub(super) fn nothing_allowed(&self) -> Error {
        match &self.constraint {
            Some(constraint) if !self.sampler.excludes() => {
                let problem = "no token of the vocabulary can continue the text";
                Error::option(constraint.option(), problem)
            }
            _ => self.sampler.nothing_allowed(),
        }
    }

    /// Refuses a text that ends by the limit, after `tokens` tokens, and is incomplete. `last` is its
    /// last token, `None` for a text without tokens.
    pub(super) fn check_complete(&mut self, last: Option<u32>, tokens: usize) -> Result<()> {
        let Some(constraint) = &mut self.constraint else {
            return Ok(());
        };
        if let Some(id) = last {
            constraint.accept(id)?;
        }
        if self.at_limit == AtLimit::Stop || constraint.is_complete()? {
            return Ok(());
        }
        Err(Error::Incomplete { tokens })
    }

    /// The tokens that the constraint allows next, bool `[V]`.
    fn allowed(&mut self, left: usize) -> Result<Option<Array>> {
        let Some(constraint) = &mut self.constraint else {
            return Ok(None);
        };
        if self.at_limit == AtLimit::Close
            && self.closing.is_empty()
            && left <= CLOSING_WINDOW
            && let Some(ids) = constraint.closing(left)?
            && ids.len() + CLOSING_MARGIN >= left
        {
            self.closing = ids.into();
        }
        if let Some(id) = self.closing.pop_front() {
            let only: Vec<bool> = (0..self.pieces).map(|other| other == id as usize).collect();
            return Ok(Some(Array::from_slice(&only, &[self.pieces as i32])));
        }
        Ok(Some(constraint.mask()?.to_array(self.pieces)))
    }
}

/// The constraint of `options` on the text after `prompt`.
fn constraint(
    options: &GenerateOptions,
    tokenizer: Option<&Tokenizer>,
    prompt: &[u32],
    end_tokens: &[u32],
) -> Result<Option<Constraint>> {
    let Some(kind) = &options.constraint else {
        return Ok(None);
    };
    if options.ignore_eos {
        let problem = format!(
            "not with {}: the text ends where it is complete",
            kind.option()
        );
        return Err(Error::option("ignore_eos", problem));
    }
    let (Some(tokenizer), Some(&eos)) = (tokenizer, end_tokens.first()) else {
        return Err(Error::option(kind.option(), "a tokenizer is needed"));
    };
    Ok(Some(Constraint::new(tokenizer, kind, prompt, eos)?))
}
