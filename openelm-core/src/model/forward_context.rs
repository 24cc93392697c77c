//! The positions of a forward pass, shared by all layers.

use mlx_rs::Array;

use super::rope::{Rope, Rotation};

/// Positions and mask of a forward pass over `L` tokens.
#[derive(Debug)]
pub(super) struct ForwardContext<'a> {
    /// The rotation of the `L` positions.
    pub(super) rotation: Rotation<'a>,
    /// The sequences that the tokens continue, in order; empty without caches.
    pub(super) segments: Vec<Segment>,
    /// Mask `[B, 1, L, T]` of the activations' type, added to the scores; the default is causal.
    pub(super) mask: Option<&'a Array>,
}

/// The tokens of one sequence in a pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Number of positions of the sequence before the first token.
    pub(super) offset: usize,
    /// Number of tokens.
    pub(super) length: usize,
}

impl<'a> ForwardContext<'a> {
    /// Sequences in caches, whose tokens follow each other in the pass.
    pub(super) fn cached(rope: &'a Rope, segments: Vec<Segment>) -> Self {
        Self {
            rotation: rope.at(&segments),
            segments,
            mask: None,
        }
    }

    /// `length` positions of whole sequences, without a cache.
    pub(super) fn whole(rope: &'a Rope, length: usize, mask: Option<&'a Array>) -> Self {
        Self {
            rotation: rope.at(&[Segment { offset: 0, length }]),
            segments: Vec::new(),
            mask,
        }
    }
}
