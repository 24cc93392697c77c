//! A KV cache that can be reused by prompts with a common prefix.

use mlx_rs::Array;

use crate::{
    error::Result,
    model::{KvCache, Model},
};

/// The tokens of a generation with their keys and values.
///
/// It can be passed to the next generation
/// ([`Generation::with_cache`](crate::generation::generation::Generation::with_cache)) of any
/// prompt and any model, which ignores the part that does not match. Belongs to the thread that
/// made it, as MLX arrays do.
#[derive(Debug, Default)]
pub struct PromptCache {
    /// `None` before the first use with a model.
    cache: Option<KvCache>,
    /// At least as many tokens as `cache` has positions.
    tokens: Vec<u32>,
    /// Revision of the model's adapters, see `Attached::revision`.
    revision: u64,
}

impl PromptCache {
    /// Number of tokens with keys and values.
    pub fn offset(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::offset)
    }

    /// Tokens that were read or generated; the last one may have no keys and values yet.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The cache for `prompt`: keeps the common prefix, without the prompt's last token.
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

    /// The keys and values. Before [`continue_with`](Self::continue_with) the cache has no layers,
    /// and [`Model::hidden`] refuses it.
    pub(crate) fn cache_mut(&mut self) -> &mut KvCache {
        self.cache.get_or_insert_with(|| KvCache::new(0))
    }

    /// The arrays of the keys and values.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        self.cache.iter().flat_map(KvCache::arrays)
    }

    /// Waits for the keys and values.
    pub(crate) fn eval(&self) -> Result<()> {
        self.cache.as_ref().map_or(Ok(()), KvCache::eval)
    }

    /// Removes every position from `positions`; does nothing if there are none.
    pub(crate) fn truncate(&mut self, positions: usize) {
        if let Some(cache) = &mut self.cache {
            cache.truncate(positions);
        }
    }

    /// Adds a generated token.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }
}
