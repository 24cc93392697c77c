//! A KV cache that can be reused by prompts with a common prefix.

use mlx_rs::Array;

use crate::{
    error::{Error, Result},
    model::{KvCache, KvCacheOptions, Model},
};

/// The tokens of a generation with their keys and values.
///
/// It can be passed to the next generation
/// ([`Generation::with_cache`](crate::generation::generation::Generation::with_cache)) of any
/// prompt and any model, which ignores the part that does not match. A clone shares the arrays until
/// one of both is written. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug, Clone, Default)]
pub struct PromptCache {
    /// `None` before the first use with a model.
    pub(super) cache: Option<KvCache>,
    /// At least as many tokens as `cache` has positions.
    pub(super) tokens: Vec<u32>,
    /// Revision of the model's adapters, see `Attached::revision`.
    pub(super) revision: u64,
}

/// The id of a token that is not known: a cache file of mlx-lm holds none. No vocabulary has it.
pub(super) const UNKNOWN: u32 = u32::MAX;

impl PromptCache {
    /// Number of tokens with keys and values.
    pub fn offset(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::offset)
    }

    /// Tokens that were read or generated; the last one may have no keys and values yet. A token
    /// that is not known, of a cache file of mlx-lm, is `u32::MAX`.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The kind of the keys and values.
    pub fn options(&self) -> KvCacheOptions {
        let options = self.cache.as_ref().map(KvCache::options);
        options.copied().unwrap_or_default()
    }

    /// Size of the keys and values in bytes, room for further positions included.
    pub fn bytes(&self) -> usize {
        self.cache.as_ref().map_or(0, KvCache::bytes)
    }

    /// The cache for `prompt`: keeps the common prefix, without the prompt's last token. Begins anew
    /// if the keys and values are of another kind than `options`, or of a rotating cache that has
    /// replaced positions and of which a part does not match.
    ///
    /// # Errors
    /// [`Error::Option`] if an option does not fit the model, or if an unknown token would have to be
    /// read.
    pub(crate) fn continue_with(
        mut self,
        model: &Model,
        prompt: Vec<u32>,
        options: &KvCacheOptions,
    ) -> Result<Self> {
        let kept = self.reusable(model, &prompt);
        let reused = self.cache.take();
        let mut reused = reused.filter(|own| kept > 0 && own.check_kind(options).is_ok());
        let is_cut = reused.as_mut().is_some_and(|own| own.truncate(kept));
        let cache = match reused {
            Some(mut cache) if is_cut => {
                cache.continue_as(*options);
                cache
            }
            _ => model.cache_with(options)?,
        };
        if prompt
            .get(cache.offset()..)
            .is_some_and(|read| read.contains(&UNKNOWN))
        {
            let problem = "it continues unknown tokens of a prompt cache that does not fit the \
                           model, its adapters or the options of the cache";
            return Err(Error::option("prompt", problem));
        }
        Ok(Self {
            cache: Some(cache),
            tokens: prompt,
            revision: model.adapters.revision,
        })
    }

    /// Number of tokens of `prompt` whose keys and values are here, without its last token; an upper
    /// bound for a cache that cannot be cut there.
    pub(super) fn reusable(&self, model: &Model, prompt: &[u32]) -> usize {
        if !self.is_of(model) {
            return 0;
        }
        let shared = std::iter::zip(&self.tokens, prompt).take_while(|(kept, new)| kept == new);
        shared.count().min(prompt.len().saturating_sub(1))
    }

    /// The tokens of the cache and then `tokens`: a prompt that continues it.
    ///
    /// # Errors
    /// [`Error::Option`] if the cache is of another model or other adapters, or its kind differs from
    /// `options`.
    pub(crate) fn followed_by(
        &self,
        model: &Model,
        tokens: &[u32],
        options: &KvCacheOptions,
    ) -> Result<Vec<u32>> {
        if tokens.is_empty() {
            return Err(Error::empty_prompt());
        }
        match &self.cache {
            Some(cache) if self.is_of(model) => cache.check_kind(options)?,
            _ => return Err(self.of_another_model()),
        }
        Ok([&self.tokens, tokens].concat())
    }

    /// True if the keys and values are of `model` with its active adapters.
    pub(super) fn is_of(&self, model: &Model) -> bool {
        self.revision == model.adapters.revision
    }

    /// The keys and values; `None` before the first use. For tests.
    #[doc(hidden)]
    pub fn into_kv_cache(self) -> Option<KvCache> {
        self.cache
    }

    /// The error of a cache whose keys and values are not those of the model in use.
    pub(super) fn of_another_model(&self) -> Error {
        let problem = match self.offset() {
            0 => "it is empty",
            _ => "it is of another model, or of other adapters",
        };
        Error::option("prompt_cache", problem)
    }

    /// The keys and values. Before [`continue_with`](Self::continue_with) the cache has no layers,
    /// and [`Model::hidden`] refuses it.
    pub(crate) fn cache_mut(&mut self) -> &mut KvCache {
        self.cache
            .get_or_insert_with(|| KvCache::new(0, KvCacheOptions::default()))
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
            let is_cut = cache.truncate(positions);
            debug_assert!(is_cut, "drafts are refused with a rotating cache");
        }
    }

    /// Largest number of drafts in the next pass, so that it does not quantise positions of drafts
    /// that may be removed.
    pub(crate) fn drafts_before_quantization(&self) -> usize {
        let positions = self
            .cache
            .as_ref()
            .and_then(KvCache::positions_before_quantization);
        // The last token is passed too.
        positions.map_or(usize::MAX, |positions| positions.saturating_sub(2))
    }

    /// Adds a generated token.
    pub(crate) fn push(&mut self, token: u32) {
        self.tokens.push(token);
    }
}
