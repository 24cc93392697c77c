//! A draft model: a smaller network with the same tokenizer, which writes the drafts.

use mlx_rs::{
    Array, Dtype,
    ops::{concatenate, indexing::TryIndexOp},
};

use super::drafter::Drafter;
use crate::{
    error::{Error, Result},
    generation::{language_model::LanguageModel, sampling::Sampler},
    mlx::evaluation,
    model::{KvCache, Model},
    tokenizer::Tokenizer,
};

/// Default of `num_draft_tokens`, as in mlx-lm.
pub const DEFAULT_DRAFT_TOKENS: usize = 3;

/// A model that drafts tokens for another one with the same tokenizer
/// ([`Generation::with_draft`](crate::generation::Generation::with_draft)).
///
/// It shares its weights with the [`LanguageModel`] that it was made from, and keeps the adapters
/// that were active then. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug, Clone)]
pub struct DraftModel {
    model: Model,
    num_draft_tokens: usize,
}

impl DraftModel {
    /// A draft model for `target` that proposes at most `num_draft_tokens` tokens per pass of
    /// `target`.
    ///
    /// # Errors
    /// [`Error::Option`] if the tokenizers have different tokens, or `num_draft_tokens` is 0.
    pub fn new(
        target: &LanguageModel,
        draft: &LanguageModel,
        num_draft_tokens: usize,
    ) -> Result<Self> {
        check_tokenizers(target.tokenizer(), draft.tokenizer())?;
        Self::of_model(draft.model(), num_draft_tokens)
    }

    /// Like [`new`](Self::new) for a network whose ids are those of the target.
    ///
    /// # Errors
    /// [`Error::Option`] if `num_draft_tokens` is 0.
    pub fn of_model(draft: &Model, num_draft_tokens: usize) -> Result<Self> {
        if num_draft_tokens == 0 {
            return Err(Error::at_least("num_draft_tokens", 1, 0));
        }
        Ok(Self {
            model: draft.clone(),
            num_draft_tokens,
        })
    }

    /// Largest number of drafts per pass.
    pub fn num_draft_tokens(&self) -> usize {
        self.num_draft_tokens
    }

    /// Checks that the network has all ids of `prompt` and those below `pieces`.
    pub(in crate::generation) fn check(&self, prompt: &[u32], pieces: usize) -> Result<()> {
        let vocab = self.model.config().vocab_size();
        let most = prompt.iter().map(|&id| id as usize + 1).max().unwrap_or(0);
        let needed = most.max(pieces);
        if needed > vocab {
            let problem = format!("expected a vocabulary of at least {needed}, found {vocab}");
            return Err(Error::option("draft_model", problem));
        }
        Ok(())
    }
}

/// Refuses tokenizers that do not have the same token for each id.
fn check_tokenizers(target: &Tokenizer, draft: &Tokenizer) -> Result<()> {
    let (ids, found) = (target.vocab_size(), draft.vocab_size());
    let problem = if ids == found {
        let differs = |&id: &u32| target.piece(id) != draft.piece(id);
        (0..ids as u32).find(differs).map(|id| {
            let piece = |tokenizer: &Tokenizer| match tokenizer.piece(id) {
                Some(piece) => format!("{piece:?}"),
                None => "no token".to_owned(),
            };
            let (expected, found) = (piece(target), piece(draft));
            format!("expected {expected} as the token {id}, found {found}")
        })
    } else {
        Some(format!("expected {ids} tokens, found {found}"))
    };
    match problem {
        Some(problem) => {
            let (draft, target) = (draft.path().display(), target.path().display());
            let problem = format!("{draft}: the tokenizer is not that of {target}: {problem}");
            Err(Error::option("draft_model", problem))
        }
        None => Ok(()),
    }
}

/// Writes drafts with a model and its keys and values.
#[derive(Debug)]
pub(super) struct ModelDrafter {
    model: Model,
    cache: KvCache,
    /// The tokens of the positions in `cache`.
    tokens: Vec<u32>,
    /// Limit of the ids that may be drawn, exclusive.
    pieces: i32,
    /// Largest number of tokens per pass.
    chunk: usize,
    cost: f32,
}

impl ModelDrafter {
    /// A drafter for a model of `parameters` parameters whose ids below `pieces` may be drawn.
    pub(super) fn new(draft: &DraftModel, parameters: u64, pieces: usize, chunk: usize) -> Self {
        let model = draft.model.clone();
        let own = model.config().parameter_count();
        Self {
            cache: model.cache(),
            tokens: Vec::new(),
            pieces: pieces as i32,
            chunk,
            cost: own as f32 / parameters.max(1) as f32,
            model,
        }
    }

    /// Removes the positions that are not those of `known`, and reads `known` but for less than a
    /// chunk, of at least one token, which it returns.
    fn read<'k>(&mut self, known: &'k [u32]) -> Result<&'k [u32]> {
        let shared = std::iter::zip(&self.tokens, known)
            .take_while(|(own, known)| own == known)
            .count();
        self.truncate(shared.min(known.len().saturating_sub(1)));
        while known.len() - self.tokens.len() > self.chunk {
            let start = self.tokens.len();
            self.pass(&known[start..start + self.chunk])?;
            evaluation::complete(self.cache.arrays())?;
        }
        Ok(&known[self.tokens.len()..])
    }

    /// The hidden states of `tokens`, which follow the cached ones.
    fn pass(&mut self, tokens: &[u32]) -> Result<Array> {
        let array = Array::from_slice(tokens, &[1, tokens.len() as i32]);
        let hidden = self.model.hidden(&array, &mut self.cache)?;
        self.tokens.extend_from_slice(tokens);
        Ok(hidden)
    }

    fn truncate(&mut self, length: usize) {
        self.tokens.truncate(length);
        let is_cut = self.cache.truncate(length);
        debug_assert!(is_cut, "the cache is plain");
    }

    /// The logits, f32 `[V]`, after the last of the `hidden` states.
    fn logits(&self, hidden: &Array) -> Result<Array> {
        let logits = self.model.logits(&hidden.try_index((.., -1, ..))?)?;
        let logits = logits.try_index((0, ..self.pieces))?;
        Ok(logits.as_dtype(Dtype::Float32)?)
    }
}

impl Drafter for ModelDrafter {
    fn read_prompt(&mut self, known: &[u32]) -> Result<()> {
        if known.len() >= self.model.config().max_context_length() {
            return Ok(());
        }
        self.read(known).map(drop)
    }

    fn expects(&self, known: &[u32]) -> bool {
        known.len() + 1 < self.model.config().max_context_length()
    }

    fn propose(&mut self, known: &[u32], sampler: &Sampler, most: usize) -> Result<Vec<u32>> {
        let context = self.model.config().max_context_length();
        let most = most.min(context.saturating_sub(known.len()));
        let Some(&last) = known.last().filter(|_| most > 0) else {
            return Ok(Vec::new());
        };
        // The target's draws: equal distributions give equal tokens.
        let mut sampler = sampler.clone();
        let unread = self.read(known)?;
        let mut hidden = self.pass(unread)?;
        let mut chosen = Vec::with_capacity(most);
        let mut accepted = last;
        loop {
            if sampler.reads_history() {
                sampler.accept(accepted);
            }
            let token = sampler.choose(&self.logits(&hidden)?, None)?;
            if sampler.reads_history() {
                evaluation::complete([&token])?;
                accepted = token.try_item_exact::<u32>()?;
            }
            chosen.push(token.clone());
            if chosen.len() == most {
                break;
            }
            hidden = self
                .model
                .hidden(&token.reshape(&[1, 1])?, &mut self.cache)?;
        }
        let drafts = concatenate(&chosen, 0)?;
        evaluation::complete([&drafts])?;
        let drafts = drafts.to_vec_exact::<u32>()?;
        self.tokens.extend_from_slice(&drafts[..most - 1]);
        Ok(drafts)
    }

    fn cost(&self) -> f32 {
        self.cost
    }
}
