//! The network run layer by layer, for checkpoints larger than memory.

use mlx_rs::Array;

use super::{
    block::TransformerBlock,
    forward_context::{ForwardContext, Segment},
    kv_cache::{KvCache, KvCacheOptions},
    linear::Linear,
    model::no_layer,
    non_finite::fits_norm,
    rms_norm::RmsNorm,
    rope::Rope,
};
use crate::{
    config::Config,
    error::Result,
    mlx::{Device, Dtype, Matrix},
    weights::Weights,
};

/// The network over one text, with the weights of only one layer in memory.
#[derive(Debug)]
pub(crate) struct LayerByLayerForward {
    config: Config,
    rope: Rope,
    /// Hidden states f32 `[1, L, D]`.
    x: Array,
    /// The first part whose output is not finite.
    non_finite: Option<String>,
}

impl LayerByLayerForward {
    /// Starts with the embeddings of `ids`, out of `token_embeddings` `[V, D]`.
    ///
    /// # Errors
    /// [`crate::error::Error::Mlx`].
    pub(crate) fn new(config: Config, ids: &[u32], token_embeddings: &Matrix) -> Result<Self> {
        let rope = Rope::new(
            config.head_dim(),
            config.rope_freq_constant(),
            Device::current()?,
        );
        let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
        let x = token_embeddings.rows(&ids, Dtype::Float32)?;
        let non_finite = (!fits_norm(&x)?).then(|| "the embedding".to_owned());
        Ok(Self {
            config,
            rope,
            x,
            non_finite,
        })
    }

    /// The first part of the network whose output is not finite.
    pub(crate) fn non_finite(&self) -> Option<&str> {
        self.non_finite.as_deref()
    }

    /// Runs the layer `index` with its `weights`, for activations in f32.
    ///
    /// # Errors
    /// [`crate::error::Error::MissingTensor`] or [`crate::error::Error::TensorShape`] if the
    /// weights do not match the layer.
    pub(crate) fn layer(&mut self, index: usize, weights: &mut Weights) -> Result<()> {
        let sizes = self.config.layers().get(index);
        let sizes = sizes.ok_or_else(|| no_layer(index))?;
        let layer = TransformerBlock::new(&self.config, sizes, index, weights)?;
        let (offset, length) = (0, self.x.dim(1) as usize);
        let segments = vec![Segment { offset, length }];
        let context = ForwardContext::cached(&self.rope, segments, vec![None]);
        // The path of generation, with a cache.
        let mut cache = KvCache::new(1, KvCacheOptions::default());
        let mut caches: Vec<_> = cache.layers_mut().iter_mut().collect();
        self.x = layer.forward(&self.x, &context, &mut caches)?;
        if !fits_norm(&self.x)? && self.non_finite.is_none() {
            self.non_finite = Some(format!("layer {index}"));
        }
        Ok(())
    }

    /// Next-token logits f32 `[1, L, V]` with the final norm `[D]` and the head `[V, D]`.
    pub(crate) fn logits(&self, norm: Array, head: Matrix) -> Result<Array> {
        let eps = self.config.rms_norm_eps() as f32;
        let norm = RmsNorm::of(norm, eps, Device::current()?);
        Linear::new(head).forward(&norm.forward(&self.x)?)
    }
}
