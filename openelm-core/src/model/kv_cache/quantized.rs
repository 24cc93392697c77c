//! Quantised keys and values of one layer: mlx-lm's `QuantizedKVCache`.

use mlx_rs::Array;

use super::{buffer, plain::PlainCache};
use crate::{
    error::Result,
    mlx::{Quantization, QuantizedMatrix},
};

/// Buffers of one layer, whose parts are `[B, kv_heads, capacity, N]`.
#[derive(Debug, Clone)]
pub(crate) struct QuantizedCache {
    pub(super) quantization: Quantization,
    pub(super) buffers: Option<(QuantizedMatrix, QuantizedMatrix)>,
}

impl QuantizedCache {
    /// Quantises a plain cache.
    pub(super) fn of(plain: &PlainCache, quantization: Quantization) -> Result<Self> {
        let buffers = match &plain.buffers {
            Some((keys, values)) => Some((
                QuantizedMatrix::quantize(keys, quantization)?,
                QuantizedMatrix::quantize(values, quantization)?,
            )),
            None => None,
        };
        Ok(Self {
            quantization,
            buffers,
        })
    }

    /// Quantises `keys` and `values` `[B, kv_heads, L, head_dim]`, writes them at `offset` and
    /// returns all positions.
    pub(super) fn update(
        &mut self,
        offset: usize,
        keys: &Array,
        values: &Array,
    ) -> Result<(QuantizedMatrix, QuantizedMatrix)> {
        let (k, v) = self.buffers.take().unzip();
        let (k, v) = (
            written(
                k,
                offset,
                QuantizedMatrix::quantize(keys, self.quantization)?,
            )?,
            written(
                v,
                offset,
                QuantizedMatrix::quantize(values, self.quantization)?,
            )?,
        );
        let end = offset + keys.dim(2) as usize;
        let first = |matrix: &QuantizedMatrix| matrix.map(|part| buffer::first(part, end));
        let views = (first(&k)?, first(&v)?);
        self.buffers = Some((k, v));
        Ok(views)
    }
}

/// `old` with `new` at `offset`.
fn written(
    old: Option<QuantizedMatrix>,
    offset: usize,
    new: QuantizedMatrix,
) -> Result<QuantizedMatrix> {
    let (weight, scales, biases) = match old {
        Some(old) => (Some(old.weight), Some(old.scales), old.biases),
        None => (None, None, None),
    };
    let biased = |new: Array| buffer::write(biases, offset, &new);
    Ok(QuantizedMatrix {
        weight: buffer::write(weight, offset, &new.weight)?,
        scales: buffer::write(scales, offset, &new.scales)?,
        biases: new.biases.map(biased).transpose()?,
        quantization: new.quantization,
    })
}
