//! The positions of a forward pass, shared by all layers.

use mlx_rs::{
    Array,
    ops::{arange, select},
};

use super::{
    kv_cache::Window,
    rope::{Rope, Rotation},
};
use crate::{error::Result, mlx::Dtype};

/// Positions and mask of a forward pass over `L` tokens.
#[derive(Debug)]
pub(super) struct ForwardContext<'a> {
    /// The rotation of the `L` positions.
    pub(super) rotation: Rotation<'a>,
    /// The sequences that the tokens continue, in order; empty without caches.
    pub(super) segments: Vec<Segment>,
    /// Mask `[1, 1, L, T]` of each segment, as `mask`; empty without caches.
    pub(super) segment_masks: Vec<Option<Array>>,
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
    /// Sequences in caches, whose tokens follow each other in the pass, with the mask of each.
    pub(super) fn cached(
        rope: &'a Rope,
        segments: Vec<Segment>,
        segment_masks: Vec<Option<Array>>,
    ) -> Self {
        Self {
            rotation: rope.at(&segments),
            segments,
            segment_masks,
            mask: None,
        }
    }

    /// A tree of tokens after the positions in one cache: `positions` of its nodes, their place
    /// `segment` in the cache, and their mask `[1, 1, L, T]`.
    pub(super) fn tree(
        rope: &'a Rope,
        positions: &[Segment],
        segment: Segment,
        mask: Array,
    ) -> Self {
        Self {
            rotation: rope.at(positions),
            segments: vec![segment],
            segment_masks: vec![Some(mask)],
            mask: None,
        }
    }

    /// `length` positions of whole sequences, without a cache.
    pub(super) fn whole(rope: &'a Rope, length: usize, mask: Option<&'a Array>) -> Self {
        Self {
            rotation: rope.at(&[Segment { offset: 0, length }]),
            segments: Vec::new(),
            segment_masks: Vec::new(),
            mask,
        }
    }
}

/// The mask `[1, 1, L, before + L]` of a chunk in a rotating cache, added to scores of type
/// `dtype`: as in mlx-lm, a token sees the last `size` positions of the buffer.
pub(super) fn window_mask(window: Window, dtype: Dtype) -> Result<Array> {
    let [before, length, size] = [window.before, window.length, window.size].map(|n| n as i32);
    let row = arange::<_, i32>(before, before + length, None)?.expand_dims(1)?;
    let column = arange::<_, i32>(None, before + length, None)?;
    let after = row.subtract(Array::from_int(size))?;
    let visible = row.ge(&column)?.logical_and(column.gt(after)?)?;
    let [seen, hidden] = [0.0, f32::NEG_INFINITY].map(Array::from_f32);
    let mask = select(&visible, seen, hidden)?.as_dtype(dtype.mlx())?;
    Ok(mask.expand_dims_axes(&[0, 1])?)
}
