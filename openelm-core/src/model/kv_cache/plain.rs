//! Keys and values of one layer in the model's dtype: mlx-lm's `KVCache`.

use mlx_rs::Array;

use super::buffer;
use crate::error::Result;

/// Buffers of one layer, `[B, kv_heads, capacity, head_dim]`.
#[derive(Debug, Clone, Default)]
pub(crate) struct PlainCache {
    pub(super) buffers: Option<(Array, Array)>,
}

impl PlainCache {
    /// Moves the buffers out: a second handle would prevent a write in place.
    pub(crate) fn take(&mut self) -> Option<(Array, Array)> {
        self.buffers.take()
    }

    /// Puts the buffers back, with the new positions.
    pub(crate) fn put(&mut self, buffers: (Array, Array)) {
        self.buffers = Some(buffers);
    }

    /// Writes `keys` and `values` `[B, kv_heads, L, head_dim]` at `offset` and returns views of
    /// all positions `[B, kv_heads, offset + L, head_dim]`.
    pub(super) fn update(
        &mut self,
        offset: usize,
        keys: &Array,
        values: &Array,
    ) -> Result<(Array, Array)> {
        // Moved out, because a second handle would prevent MLX from writing in place.
        let (k, v) = self.buffers.take().unzip();
        let (k, v) = (
            buffer::write(k, offset, keys)?,
            buffer::write(v, offset, values)?,
        );
        let end = offset + keys.dim(2) as usize;
        let views = (buffer::first(&k, end)?, buffer::first(&v, end)?);
        self.buffers = Some((k, v));
        Ok(views)
    }
}
