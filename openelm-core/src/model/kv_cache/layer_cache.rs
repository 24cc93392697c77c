//! The cache of one layer, of any kind.

use mlx_rs::Array;

use super::{
    options::KvCacheOptions, plain::PlainCache, quantized::QuantizedCache, rotating::RotatingCache,
};
use crate::{
    error::Result,
    mlx::{Quantization, QuantizedMatrix},
};

/// Keys and values of one layer.
#[derive(Debug, Clone)]
pub(crate) enum LayerCache {
    Plain(PlainCache),
    Rotating(RotatingCache),
    Quantized(QuantizedCache),
}

/// Keys and values `[B, kv_heads, T, head_dim]` that a pass attends to.
#[derive(Debug)]
pub(crate) enum Cached {
    /// In the model's dtype.
    Dense(Array, Array),
    /// Quantised.
    Quantized(QuantizedMatrix, QuantizedMatrix),
}

impl LayerCache {
    /// An empty cache. A cache with `kv_bits` is plain until it is quantised.
    pub(super) fn new(options: &KvCacheOptions) -> Self {
        match options.max_kv_size {
            Some(size) => Self::Rotating(RotatingCache::new(size, options.keep)),
            None => Self::Plain(PlainCache::default()),
        }
    }

    /// Adds `keys` and `values` `[B, kv_heads, L, head_dim]` after `offset` positions and returns
    /// the positions that they attend to.
    pub(crate) fn update(&mut self, offset: usize, keys: &Array, values: &Array) -> Result<Cached> {
        Ok(match self {
            Self::Plain(cache) => {
                let (keys, values) = cache.update(offset, keys, values)?;
                Cached::Dense(keys, values)
            }
            Self::Rotating(cache) => {
                let (keys, values) = cache.update(offset, keys, values)?;
                Cached::Dense(keys, values)
            }
            Self::Quantized(cache) => {
                let (keys, values) = cache.update(offset, keys, values)?;
                Cached::Quantized(keys, values)
            }
        })
    }

    /// Keeps the first `offset` positions, of a rotating cache that has not wrapped.
    pub(super) fn truncate(&mut self, offset: usize) {
        if let Self::Rotating(cache) = self {
            cache.index = offset;
        }
    }

    /// Quantises a plain cache.
    pub(super) fn quantize(&mut self, quantization: Quantization) -> Result<()> {
        if let Self::Plain(cache) = self {
            *self = Self::Quantized(QuantizedCache::of(cache, quantization)?);
        }
        Ok(())
    }

    /// The format of a quantised cache.
    pub(super) fn quantization(&self) -> Option<Quantization> {
        match self {
            Self::Quantized(cache) => Some(cache.quantization),
            _ => None,
        }
    }

    /// The arrays of keys, then of values.
    pub(super) fn arrays(&self) -> Vec<&Array> {
        match self {
            Self::Plain(PlainCache { buffers }) | Self::Rotating(RotatingCache { buffers, .. }) => {
                buffers.iter().flat_map(|(k, v)| [k, v]).collect()
            }
            Self::Quantized(QuantizedCache { buffers, .. }) => {
                let matrices = buffers.iter().flat_map(|(k, v)| [k, v]);
                matrices.flat_map(QuantizedMatrix::arrays).collect()
            }
        }
    }
}
