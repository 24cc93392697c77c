//! The positions of a forward pass, shared by all layers.

use mlx_rs::Array;

use super::rope::{Rope, Rotation};

/// Positions and mask of a forward pass over `L` tokens.
#[derive(Debug)]
pub(super) struct ForwardContext<'a> {
    /// The rotation of the positions `offset .. offset + L`.
    pub(super) rotation: Rotation<'a>,
    /// Number of cached positions before the first.
    pub(super) offset: usize,
    /// Mask `[B, 1, L, T]` of the activations' type, added to the scores; the default is causal.
    pub(super) mask: Option<&'a Array>,
}

impl<'a> ForwardContext<'a> {
    /// `length` positions after the `offset` of a cache.
    pub(super) fn cached(rope: &'a Rope, offset: usize, length: usize) -> Self {
        Self {
            rotation: rope.at(offset, length),
            offset,
            mask: None,
        }
    }

    /// `length` positions of whole sequences, without a cache.
    pub(super) fn whole(rope: &'a Rope, length: usize, mask: Option<&'a Array>) -> Self {
        Self {
            rotation: rope.at(0, length),
            offset: 0,
            mask,
        }
    }
}
