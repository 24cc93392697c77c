//! The key-value cache of one sequence.

use mlx_rs::Array;

use super::{layer_cache::LayerCache, options::KvCacheOptions};
use crate::error::{Error, Result};

/// Rotated keys and values of every layer, for the positions computed so far. A clone shares the
/// arrays; the first write through one of them copies.
#[derive(Debug, Clone)]
pub struct KvCache {
    pub(super) layers: Vec<LayerCache>,
    pub(super) offset: usize,
    pub(super) options: KvCacheOptions,
}

impl KvCache {
    /// An empty cache for a model of `layers` layers; `options` must be valid.
    pub(crate) fn new(layers: usize, options: KvCacheOptions) -> Self {
        Self {
            layers: (0..layers).map(|_| LayerCache::new(&options)).collect(),
            offset: 0,
            options,
        }
    }

    /// Number of positions computed so far. A rotating cache may have lost some of them.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The kind of the cache.
    pub fn options(&self) -> &KvCacheOptions {
        &self.options
    }

    /// Size of the arrays in bytes, room for further positions included.
    pub fn bytes(&self) -> usize {
        self.arrays().map(Array::nbytes).sum()
    }

    /// True if [`truncate`](Self::truncate) can remove every position from `offset`: a rotating
    /// cache that has replaced positions can only be emptied.
    pub fn can_truncate(&self, offset: usize) -> bool {
        let wrapped = self
            .options
            .max_kv_size
            .is_some_and(|size| self.offset >= size);
        offset == 0 || offset >= self.offset || !wrapped
    }

    /// Removes every position from `offset`; does nothing if there are none. Returns false, and
    /// changes nothing, if this is not possible ([`can_truncate`](Self::can_truncate)).
    #[must_use = "a rotating cache may keep all positions"]
    pub fn truncate(&mut self, offset: usize) -> bool {
        if !self.can_truncate(offset) {
            return false;
        }
        if offset == 0 {
            *self = Self::new(self.layers.len(), self.options);
        } else if offset < self.offset {
            self.offset = offset;
            self.layers
                .iter_mut()
                .for_each(|layer| layer.truncate(offset));
        }
        true
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
        self.layers.iter().flat_map(LayerCache::arrays)
    }

    pub(crate) fn layers_mut(&mut self) -> &mut [LayerCache] {
        &mut self.layers
    }

    /// Counts `length` new positions, and quantises the cache if they reach `quantized_kv_start`.
    pub(crate) fn advance(&mut self, length: usize) -> Result<()> {
        self.offset += length;
        if let Some(quantization) = self.options.quantization()?
            && self.offset >= self.options.quantized_kv_start
        {
            for layer in &mut self.layers {
                layer.quantize(quantization)?;
            }
        }
        Ok(())
    }

    /// Number of positions after which the cache will be quantised; `None` if it is, or is not to
    /// be.
    pub(crate) fn positions_before_quantization(&self) -> Option<usize> {
        let plain = matches!(self.layers.first(), Some(LayerCache::Plain(_)));
        let positions = self.options.quantized_kv_start.saturating_sub(self.offset);
        (plain && self.options.kv_bits.is_some()).then_some(positions)
    }

    /// Checks that the positions of the cache are of the kind that `options` select. A cache that is
    /// not quantised yet can be.
    ///
    /// # Errors
    /// [`Error::Option`] with the option that differs.
    pub(crate) fn check_kind(&self, options: &KvCacheOptions) -> Result<()> {
        let differs = |option, own: Option<usize>, found: Option<usize>| {
            let [own, found] = [own, found].map(|n| n.map_or("none".into(), |n| n.to_string()));
            let problem = format!("expected {own}, as in the prompt cache, found {found}");
            Err(Error::option(option, problem))
        };
        let own = &self.options;
        if own.max_kv_size != options.max_kv_size {
            return differs("max_kv_size", own.max_kv_size, options.max_kv_size);
        }
        if own.max_kv_size.is_some() && own.keep != options.keep {
            let problem = "the prompt cache keeps another number of first positions";
            return Err(Error::option("max_kv_size", problem));
        }
        let Some(quantized) = self.layers.first().and_then(LayerCache::quantization) else {
            return Ok(());
        };
        if options.kv_bits != Some(quantized.bits()) {
            return differs("kv_bits", Some(quantized.bits()), options.kv_bits);
        }
        if options.kv_group_size != quantized.group_size() {
            let (own, found) = (quantized.group_size(), options.kv_group_size);
            return differs("kv_group_size", Some(own), Some(found));
        }
        Ok(())
    }

    /// Continues with `options`, which are of the same kind ([`check_kind`](Self::check_kind)).
    pub(crate) fn continue_as(&mut self, options: KvCacheOptions) {
        self.options = options;
    }

    /// The window of a pass of `length` tokens, if it is less than all positions before them.
    pub(crate) fn window(&self, length: usize) -> Option<Window> {
        let size = self.options.max_kv_size?;
        let before = self.offset.min(size - 1);
        (length > 1 && before + length > size).then_some(Window {
            before,
            length,
            size,
        })
    }
}

/// The positions that the tokens of a chunk attend to in a rotating cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Window {
    /// Number of cached positions before the chunk.
    pub(crate) before: usize,
    /// Number of tokens in the chunk.
    pub(crate) length: usize,
    /// Number of positions that a token sees, itself included.
    pub(crate) size: usize,
}
