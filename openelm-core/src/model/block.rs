//! A decoder layer: attention and feed-forward, each with a pre-norm and a residual connection.

use mlx_rs::{Array, Dtype};

use super::{
    attention::Attention, feed_forward::FeedForward, forward_context::ForwardContext,
    kv_cache::LayerCache, rms_norm::RmsNorm,
};
use crate::{
    config::{
        Config, Layer,
        tensor_names::{ATTN_NORM, FFN_NORM, layer as layer_name},
    },
    error::Result,
    mlx::{Device, primitives::CpuPrimitives},
    weights::Weights,
};

/// A layer of the decoder.
#[derive(Debug, Clone)]
pub(super) struct TransformerBlock {
    pub(super) attn_norm: RmsNorm,
    pub(super) attn: Attention,
    pub(super) ffn_norm: RmsNorm,
    pub(super) ffn: FeedForward,
    device: Device,
}

impl TransformerBlock {
    pub(super) fn new(
        config: &Config,
        layer: &Layer,
        index: usize,
        weights: &mut Weights,
    ) -> Result<Self> {
        Ok(Self {
            attn_norm: RmsNorm::new(config, &layer_name(index, ATTN_NORM), weights)?,
            attn: Attention::new(config, layer, index, weights)?,
            ffn_norm: RmsNorm::new(config, &layer_name(index, FFN_NORM), weights)?,
            ffn: FeedForward::new(config, layer, index, weights)?,
            device: Device::current()?,
        })
    }

    /// `[B, L, D]` to `[B, L, D]`. Without caches the positions have no context before them.
    pub(super) fn forward(
        &self,
        x: &Array,
        context: &ForwardContext<'_>,
        caches: &mut [&mut LayerCache],
    ) -> Result<Array> {
        // Training uses whole sequences without a cache.
        let trained = caches.is_empty();
        if !trained
            && x.dtype() == Dtype::Float32
            && let Some(primitives) = CpuPrimitives::of(self.device)
        {
            let norm = &self.attn_norm;
            let attn = &self.attn;
            let x = attn.forward_on_cpu(primitives, x, norm, context, caches)?;
            return self.ffn.forward_on_cpu(primitives, &x, &self.ffn_norm);
        }
        let normed = self.attn_norm.forward(x)?;
        let x = self.attn.forward(&normed, x, context, caches)?;
        self.ffn.forward(&self.ffn_norm.forward(&x)?, &x, trained)
    }
}
