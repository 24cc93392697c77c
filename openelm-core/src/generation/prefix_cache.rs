//! Keys and values of prompts and texts, shared by requests.

use std::collections::VecDeque;

use super::prompt_cache::{PromptCache, UNKNOWN};
use crate::model::{KvCacheOptions, Model};

/// Largest number of caches. Each request compares its prompt with all of them.
const MOST: usize = 64;

/// Prompt caches with a limit of their total size, and of 64 caches; the least recently used is
/// removed first.
///
/// Requests share the keys and values of a prefix only with the same weights and the same active
/// adapters: each state of a model's adapters has its own prefixes. Belongs to the thread that made
/// the caches, as MLX arrays do.
#[derive(Debug)]
pub struct PrefixCache {
    limit: usize,
    bytes: usize,
    /// The least recently used first.
    caches: VecDeque<PromptCache>,
}

impl Default for PrefixCache {
    /// Up to 256 MiB; 32 MiB on iOS, where the system ends apps that need much memory.
    fn default() -> Self {
        let mebibytes = if cfg!(target_os = "ios") { 32 } else { 256 };
        Self::new(mebibytes << 20)
    }
}

impl PrefixCache {
    /// An empty cache for up to `limit_bytes` of keys and values. Caches that share arrays are
    /// counted in full.
    pub fn new(limit_bytes: usize) -> Self {
        Self {
            limit: limit_bytes,
            bytes: 0,
            caches: VecDeque::new(),
        }
    }

    /// The cache with the longest common prefix of `prompt` for `model` with its active adapters, of
    /// the kind of `options`; an empty one if there is none. It is a copy that shares the arrays, so
    /// several sequences can use it at once.
    pub fn take(&mut self, model: &Model, prompt: &[u32], options: &KvCacheOptions) -> PromptCache {
        let mut best = None;
        for (index, cache) in self.caches.iter().enumerate() {
            let length = shared(cache, model, prompt, options);
            // Of equal lengths, the last used.
            if length > 0 && best.is_none_or(|(longest, _)| length >= longest) {
                best = Some((length, index));
            }
        }
        let found = best.and_then(|(_, index)| self.caches.remove(index));
        let Some(found) = found else {
            return PromptCache::default();
        };
        self.caches.push_back(found.clone());
        found
    }

    /// Adds the cache of a generation that ended, and removes the least recently used ones above the
    /// limit. A cache that is larger than the limit, or whose tokens are unknown, is not kept; nor
    /// is a prefix of another one.
    pub fn insert(&mut self, cache: PromptCache) {
        let bytes = cache.bytes();
        if bytes == 0 || bytes > self.limit || cache.tokens().contains(&UNKNOWN) {
            return;
        }
        if let Some(index) = self.caches.iter().position(|other| covers(other, &cache)) {
            let other = self.caches.remove(index);
            self.caches.extend(other);
            return;
        }
        self.caches.retain(|other| !covers(&cache, other));
        self.caches.push_back(cache);
        self.evict();
    }

    /// Sets the limit of the size, and removes the least recently used caches above it. 0 keeps
    /// none.
    pub fn set_limit(&mut self, limit_bytes: usize) {
        self.limit = limit_bytes;
        self.evict();
    }

    /// Number of caches.
    pub fn len(&self) -> usize {
        self.caches.len()
    }

    /// True if there are no caches.
    pub fn is_empty(&self) -> bool {
        self.caches.is_empty()
    }

    /// Size of all caches in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Removes all caches.
    pub fn clear(&mut self) {
        self.caches.clear();
        self.bytes = 0;
    }
}

impl PrefixCache {
    fn evict(&mut self) {
        self.bytes = self.caches.iter().map(PromptCache::bytes).sum();
        while (self.bytes > self.limit || self.caches.len() > MOST)
            && let Some(oldest) = self.caches.pop_front()
        {
            self.bytes -= oldest.bytes();
        }
    }
}

/// Number of tokens of `prompt` that `cache` saves.
fn shared(cache: &PromptCache, model: &Model, prompt: &[u32], options: &KvCacheOptions) -> usize {
    let length = cache.reusable(model, prompt).min(cache.offset());
    let keys = cache.cache.as_ref();
    let fits = |keys: &&crate::model::KvCache| {
        keys.check_kind(options).is_ok() && keys.can_truncate(length)
    };
    keys.filter(fits).map_or(0, |_| length)
}

/// True if `cache` serves every prompt that `other` serves.
fn covers(cache: &PromptCache, other: &PromptCache) -> bool {
    let (Some(keys), Some(others)) = (&cache.cache, &other.cache) else {
        return false;
    };
    let positions = other.tokens.get(..others.offset());
    cache.revision == other.revision
        && keys.options() == others.options()
        && keys.can_truncate(others.offset())
        && positions.is_some_and(|tokens| {
            cache
                .tokens
                .get(..keys.offset())
                .is_some_and(|own| own.starts_with(tokens))
        })
}
