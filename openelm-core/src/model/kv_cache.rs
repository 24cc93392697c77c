//! The key-value cache of one sequence: grows in steps and is written in place.

use mlx_rs::{
    Array,
    ops::{
        concatenate,
        indexing::{TryIndexMutOp, TryIndexOp},
        zeros_dtype,
    },
};

use crate::error::Result;

/// Rotated keys and values of every layer, for the positions computed so far.
#[derive(Debug)]
pub struct KvCache {
    layers: Vec<LayerCache>,
    offset: usize,
}

impl KvCache {
    /// An empty cache for a model of `layers` layers.
    pub(crate) fn new(layers: usize) -> Self {
        Self {
            layers: (0..layers).map(|_| LayerCache::default()).collect(),
            offset: 0,
        }
    }

    /// Number of positions in the cache.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// Removes every position from `offset`; does nothing if there are none.
    pub fn truncate(&mut self, offset: usize) {
        self.offset = self.offset.min(offset);
    }

    /// Evaluates the cached arrays: after a chunk of a long prompt, whose hidden states are not
    /// needed.
    ///
    /// # Errors
    /// [`crate::error::Error::Mlx`] if MLX runs out of memory.
    pub fn eval(&self) -> Result<()> {
        Ok(mlx_rs::transforms::eval(self.arrays())?)
    }

    /// The cached arrays.
    pub(crate) fn arrays(&self) -> impl Iterator<Item = &Array> {
        let buffers = self
            .layers
            .iter()
            .filter_map(|layer| layer.buffers.as_ref());
        buffers.flat_map(|(keys, values)| [keys, values])
    }

    pub(crate) fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    pub(crate) fn advance(&mut self, length: usize) {
        self.offset += length;
    }
}

/// Buffers of one layer, `[B, kv_heads, capacity, head_dim]`.
#[derive(Debug, Default)]
pub(crate) struct LayerCache {
    buffers: Option<(Array, Array)>,
}

/// Growth of a full buffer, in positions.
const STEP: usize = 256;

impl LayerCache {
    /// Writes `keys` and `values` `[B, kv_heads, L, head_dim]` at `offset` and returns views of
    /// all positions `[B, kv_heads, offset + L, head_dim]`.
    pub(crate) fn update(
        &mut self,
        offset: usize,
        keys: &Array,
        values: &Array,
    ) -> Result<(Array, Array)> {
        let end = offset + keys.dim(2) as usize;
        // Moved out, because a second handle would prevent MLX from writing in place.
        let (mut k, mut v) = match self.buffers.take() {
            Some((k, v)) if k.dim(2) as usize >= end => (k, v),
            old => {
                let (old_k, old_v) = old.unzip();
                (
                    grow(old_k, offset, end, keys)?,
                    grow(old_v, offset, end, values)?,
                )
            }
        };
        let (from, to) = (offset as i32, end as i32);
        k.try_index_mut((.., .., from..to, ..), keys)?;
        v.try_index_mut((.., .., from..to, ..), values)?;
        let views = (
            k.try_index((.., .., ..to, ..))?,
            v.try_index((.., .., ..to, ..))?,
        );
        self.buffers = Some((k, v));
        Ok(views)
    }
}

/// A buffer for at least `end` positions that keeps the first `offset` of `old`.
fn grow(old: Option<Array>, offset: usize, end: usize, like: &Array) -> Result<Array> {
    let kept = match old {
        Some(old) if offset > 0 => Some(old.try_index((.., .., ..offset as i32, ..))?),
        _ => None,
    };
    let mut shape = like.shape().to_vec();
    shape[2] = ((end - offset).div_ceil(STEP) * STEP) as i32;
    let fresh = zeros_dtype(&shape, like.dtype())?;
    Ok(match kept {
        Some(kept) => concatenate(&[kept, fresh], 2)?,
        None => fresh,
    })
}
