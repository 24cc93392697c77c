//! The keys and values of a prefix that several sequences continue.

use mlx_rs::Array;

use crate::{
    error::Result,
    model::{KvCache, Model, TokenTree},
};

/// Tokens with their keys and values.
#[derive(Debug)]
pub(super) struct Trunk {
    cache: KvCache,
    tokens: Vec<u32>,
}

impl Trunk {
    /// No tokens.
    pub(super) fn new(model: &Model) -> Self {
        Self {
            cache: model.cache(),
            tokens: Vec::new(),
        }
    }

    /// Number of tokens.
    pub(super) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// Number of the first tokens of `sequence` that are here.
    pub(super) fn shared(&self, sequence: impl IntoIterator<Item = u32>) -> usize {
        let pairs = self.tokens.iter().zip(sequence);
        pairs.take_while(|(own, other)| **own == *other).count()
    }

    /// Removes all tokens from the index `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        self.tokens.truncate(len);
        let is_cut = self.cache.truncate(len);
        debug_assert!(is_cut, "a plain cache can be cut anywhere");
    }

    /// Adds `tokens`, and returns their final hidden states `[1, L, D]`, which are not evaluated.
    pub(super) fn extend(&mut self, model: &Model, tokens: &[u32]) -> Result<Array> {
        let array = Array::from_slice(tokens, &[1, tokens.len() as i32]);
        let hidden = model.hidden(&array, &mut self.cache)?;
        self.tokens.extend_from_slice(tokens);
        Ok(hidden)
    }

    /// Waits for the keys and values.
    pub(super) fn eval(&self) -> Result<()> {
        self.cache.eval()
    }

    /// The final hidden states `[1, L, D]` of the nodes of `tree`, whose sequences continue the
    /// tokens, passed to `read`, which evaluates what it needs of them. Nothing is added.
    pub(super) fn branch<T>(
        &mut self,
        model: &Model,
        tree: &TokenTree,
        read: impl FnOnce(&Array) -> Result<T>,
    ) -> Result<T> {
        let result = model
            .hidden_of_tree(tree, &mut self.cache)
            .and_then(|hidden| read(&hidden));
        let is_cut = self.cache.truncate(self.tokens.len());
        debug_assert!(is_cut, "a plain cache can be cut anywhere");
        result
    }
}
