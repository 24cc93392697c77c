//! The OpenELM decoder: pre-norm layers of varying width over a tied embedding
//! (arXiv 2404.14619, section 2.1; CoreNet `general_gpt.py`).
//!
//! Shapes: `B` batch, `L` length, `D` model width, `V` vocabulary.

use mlx_rs::{Array, fast};

use crate::{
    attention::Attention,
    cache::{KvCache, LayerCache},
    config::{Config, Layer},
    dtype::{Device, Dtype},
    error::Result,
    feed_forward::FeedForward,
    linear::Linear,
    rope::{Rope, Rotation},
    weights::Weights,
};

/// An OpenELM network with its weights. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Model {
    config: Config,
    dtype: Dtype,
    token_embeddings: Array,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    head: Linear,
    rope: Rope,
}

impl Model {
    /// Builds the network from `weights`, which must be of type `dtype`.
    ///
    /// # Errors
    /// [`crate::Error::MissingTensor`] or [`crate::Error::TensorShape`] if the weights are not
    /// those of `config`.
    pub fn new(config: Config, mut weights: Weights, dtype: Dtype) -> Result<Self> {
        let width = config.model_dim();
        let embedding_shape = [config.vocab_size(), width];
        let token_embeddings =
            weights.take("transformer.token_embeddings.weight", &embedding_shape)?;
        let head = if config.share_input_output_layers() {
            token_embeddings.clone()
        } else {
            weights.take("lm_head.weight", &embedding_shape)?
        };
        let layers = config
            .layers()
            .iter()
            .enumerate()
            .map(|(i, layer)| DecoderLayer::new(&config, layer, i, &mut weights))
            .collect::<Result<_>>()?;
        Ok(Self {
            norm: RmsNorm::new(&config, "transformer.norm", &mut weights)?,
            head: Linear::new(head),
            rope: Rope::new(
                config.head_dim(),
                config.rope_freq_constant(),
                Device::current()?,
            ),
            token_embeddings,
            layers,
            dtype,
            config,
        })
    }

    /// The architecture.
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The type that weights and activations have.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// An empty cache for one sequence, or for several of the same length.
    pub fn cache(&self) -> KvCache {
        KvCache::new(self.layers.len())
    }

    /// Final hidden states `[B, L, D]` of `tokens` `[B, L]` (integers below `V`), which continue
    /// the sequence that `cache` holds; their keys and values are added to it.
    ///
    /// The result is lazy: nothing is computed until it is evaluated.
    ///
    /// # Errors
    /// [`crate::Error::Mlx`] if the shapes do not fit.
    pub fn hidden(&self, tokens: &Array, cache: &mut KvCache) -> Result<Array> {
        let (offset, length) = (cache.offset(), tokens.dim(1) as usize);
        let rotation = self.rope.at(offset, length);
        let mut x = self.token_embeddings.take_axis(tokens, 0)?;
        for (layer, cache) in self.layers.iter().zip(cache.layers_mut()) {
            x = layer.forward(&x, &rotation, cache, offset)?;
        }
        cache.advance(length);
        self.norm.forward(&x)
    }

    /// Next-token logits `[..., V]` of hidden states `[..., D]`.
    ///
    /// # Errors
    /// [`crate::Error::Mlx`] if the shapes do not fit.
    pub fn logits(&self, hidden: &Array) -> Result<Array> {
        self.head.forward(hidden)
    }
}

#[derive(Debug)]
struct DecoderLayer {
    attn_norm: RmsNorm,
    attn: Attention,
    ffn_norm: RmsNorm,
    ffn: FeedForward,
}

impl DecoderLayer {
    fn new(config: &Config, layer: &Layer, index: usize, weights: &mut Weights) -> Result<Self> {
        let prefix = format!("transformer.layers.{index}");
        Ok(Self {
            attn_norm: RmsNorm::new(config, &format!("{prefix}.attn_norm"), weights)?,
            attn: Attention::new(config, layer, &format!("{prefix}.attn"), weights)?,
            ffn_norm: RmsNorm::new(config, &format!("{prefix}.ffn_norm"), weights)?,
            ffn: FeedForward::new(config, layer, &format!("{prefix}.ffn"), weights)?,
        })
    }

    fn forward(
        &self,
        x: &Array,
        rotation: &Rotation<'_>,
        cache: &mut LayerCache,
        offset: usize,
    ) -> Result<Array> {
        let x =
            x.add(
                self.attn
                    .forward(&self.attn_norm.forward(x)?, rotation, cache, offset)?,
            )?;
        Ok(x.add(self.ffn.forward(&self.ffn_norm.forward(&x)?)?)?)
    }
}

/// RMSNorm over the last axis; MLX squares in f32 whatever the type.
#[derive(Debug)]
struct RmsNorm {
    weight: Array,
    eps: f32,
}

impl RmsNorm {
    fn new(config: &Config, name: &str, weights: &mut Weights) -> Result<Self> {
        let weight = weights.take(&format!("{name}.weight"), &[config.model_dim()])?;
        Ok(Self {
            weight,
            eps: config.rms_norm_eps() as f32,
        })
    }

    fn forward(&self, x: &Array) -> Result<Array> {
        Ok(fast::rms_norm(x, Some(&self.weight), self.eps)?)
    }
}
