//! The network a layer at a time, for checkpoints larger than memory.

use mlx_rs::Array;

use super::{block::TransformerBlock, linear::Linear, rms_norm::RmsNorm, rope::Rope};
use crate::{
    config::Config,
    error::Result,
    mlx::{Device, Matrix},
    weights::Weights,
};

/// The network run a layer at a time over one text, with only that layer's weights in memory.
#[derive(Debug)]
pub(crate) struct LayerByLayerForward {
    config: Config,
    rope: Rope,
    /// u32 `[1, L]`.
    ids: Array,
    /// f32 `[1, L, D]`.
    x: Array,
}

impl LayerByLayerForward {
    pub(crate) fn new(config: Config, ids: &[u32]) -> Result<Self> {
        let rope = Rope::new(
            config.head_dim(),
            config.rope_freq_constant(),
            Device::current()?,
        );
        let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
        Ok(Self {
            config,
            rope,
            x: ids.clone(),
            ids,
        })
    }

    /// Looks the ids up in the embedding, f32 `[V, D]`.
    pub(crate) fn embed(&mut self, token_embeddings: &Array) -> Result<()> {
        self.x = token_embeddings.take_axis(&self.ids, 0)?;
        Ok(self.x.eval()?)
    }

    /// Runs the layer `index` with its `weights`, f32.
    pub(crate) fn layer(&mut self, index: usize, weights: &mut Weights) -> Result<()> {
        let Some(sizes) = self.config.layers().get(index) else {
            return Ok(());
        };
        let layer = TransformerBlock::new(&self.config, sizes, index, weights)?;
        let rotation = self.rope.at(0, self.ids.dim(1) as usize);
        self.x = layer.forward(&self.x, &rotation, None, 0, None)?;
        Ok(self.x.eval()?)
    }

    /// Next-token logits f32 `[1, L, V]` by the final norm `[D]` and the head `[V, D]`.
    pub(crate) fn logits(&self, norm: Array, head: &Array) -> Result<Array> {
        let norm = RmsNorm {
            weight: norm,
            eps: self.config.rms_norm_eps() as f32,
        };
        Linear::new(Matrix::Dense(head.clone())).forward(&norm.forward(&self.x)?)
    }
}
