//! The positions of a forward pass, the same for all layers.

use mlx_rs::Array;

use super::rope::{Rope, Rotation};

/// The positions of a forward pass over `L` tokens, and what each sees.
#[derive(Debug)]
pub(super) struct ForwardContext<'a> {
    /// The rotation of the positions `offset .. offset + L`.
    pub(super) rotation: Rotation<'a>,
    /// Positions before the first, which the cache holds.
    pub(super) offset: usize,
    /// `[B, 1, L, T]` of the activations' type, added to the scores in place of the causal mask.
    pub(super) mask: Option<&'a Array>,
}

impl<'a> ForwardContext<'a> {
    /// `length` positions that follow the `offset` of a cache.
    pub(super) fn cached(rope: &'a Rope, offset: usize, length: usize) -> Self {
        Self {
            rotation: rope.at(offset, length),
            offset,
            mask: None,
        }
    }

    /// The `length` positions of whole sequences, without a cache.
    pub(super) fn whole(rope: &'a Rope, length: usize, mask: Option<&'a Array>) -> Self {
        Self {
            rotation: rope.at(0, length),
            offset: 0,
            mask,
        }
    }
}
