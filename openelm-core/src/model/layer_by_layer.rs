//! The network run layer by layer, for checkpoints larger than memory.

use mlx_rs::Array;

use super::{linear::Linear, non_finite::fits_norm, rms_norm::RmsNorm, single_layer::SingleLayer};
use crate::{config::Config, error::Result, mlx::Matrix, weights::Weights};

/// The network over one text, with the weights of only one layer in memory.
#[derive(Debug)]
pub(crate) struct LayerByLayerForward {
    config: Config,
    /// Hidden states f32 `[1, L, D]`.
    x: Array,
    /// The first part whose output is not finite.
    non_finite: Option<String>,
}

impl LayerByLayerForward {
    /// Starts with the embeddings of `ids`, out of `token_embeddings` f32 `[V, D]`.
    ///
    /// # Errors
    /// [`crate::error::Error::Mlx`].
    pub(crate) fn new(config: Config, ids: &[u32], token_embeddings: &Array) -> Result<Self> {
        let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
        let x = token_embeddings.take_axis(&ids, 0)?;
        let non_finite = (!fits_norm(&x)?).then(|| "the embedding".to_owned());
        Ok(Self {
            config,
            x,
            non_finite,
        })
    }

    /// The first part of the network whose output is not finite.
    pub(crate) fn non_finite(&self) -> Option<&str> {
        self.non_finite.as_deref()
    }

    /// Runs the layer `index` with its `weights`, f32.
    ///
    /// # Errors
    /// [`crate::error::Error::MissingTensor`] or [`crate::error::Error::TensorShape`] if the
    /// weights do not match the layer.
    pub(crate) fn layer(&mut self, index: usize, weights: &mut Weights) -> Result<()> {
        self.x = SingleLayer::new(&self.config, index, weights)?.forward(&self.x)?;
        if !fits_norm(&self.x)? && self.non_finite.is_none() {
            self.non_finite = Some(format!("layer {index}"));
        }
        Ok(())
    }

    /// Next-token logits f32 `[1, L, V]` with the final norm `[D]` and the head `[V, D]`.
    pub(crate) fn logits(&self, norm: Array, head: &Array) -> Result<Array> {
        let norm = RmsNorm {
            weight: norm,
            eps: self.config.rms_norm_eps() as f32,
        };
        Linear::new(Matrix::Dense(head.clone())).forward(&norm.forward(&self.x)?)
    }
}
