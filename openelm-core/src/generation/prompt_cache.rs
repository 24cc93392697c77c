//! The cache of a prompt: the tokens of a text with their keys and values, for prompts that
//! begin alike.

use crate::model::{KvCache, Model};

/// The tokens of a generation, and the keys and values that a model made of them.
///
/// It may be kept after a generation and given to the next one
/// ([`Generation::with_cache`](crate::generation::generation::Generation::with_cache)), of any prompt and any model: what
/// cannot be used is left. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug, Default)]
pub struct PromptCache {
    /// `None` until a model has it.
    cache: Option<KvCache>,
    /// At least as many as `cache` holds positions.
    tokens: Vec<u32>,
    /// That of the model, see `Attached::revision`.
    revision: u64,
}

impl PromptCache {
    /// Tokens that it holds keys and values of.
    pub fn offset(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::offset)
    }

    /// Tokens that were read or generated, the last one of which may not have been read itself.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The cache for `prompt`: it keeps the tokens that both begin with, but not the prompt's last.
    pub(crate) fn continue_with(mut self, model: &Model, prompt: Vec<u32>) -> Self {
        let revision = model.adapters.revision;
        let shared = if self.revision == revision {
            std::iter::zip(&self.tokens, &prompt)
                .take_while(|(kept, new)| kept == new)
                .count()
        } else {
            0
        };
        let cache = match self.cache.take() {
            Some(mut cache) if shared > 0 => {
                cache.truncate(shared.min(prompt.len().saturating_sub(1)));
                cache
            }
            _ => model.cache(),
        };
        Self {
            cache: Some(cache),
            tokens: prompt,
            revision,
        }
    }

    /// The keys and values: of no layers, which [`Model::hidden`] refuses, before
    /// [`continue_with`](Self::continue_with).
    pub(crate) fn cache_mut(&mut self) -> &mut KvCache {
        self.cache.get_or_insert_with(|| KvCache::new(0))
    }

    /// Takes in a token that was generated.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }
}
