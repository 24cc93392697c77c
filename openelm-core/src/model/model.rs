//! The OpenELM decoder: pre-norm layers of varying width over a tied embedding
//! (arXiv 2404.14619, section 2.1; CoreNet `general_gpt.py`).
//!
//! Shapes: `B` batch, `L` length, `D` model width, `V` vocabulary.

use mlx_rs::{Array, fast};

use super::{
    attention::Attention,
    feed_forward::FeedForward,
    kv_cache::{KvCache, LayerCache},
    linear::{Linear, LinearVisitor, Matrix, NormVisitor},
    rope::{Rope, Rotation},
};
use crate::{
    adapter::Attached,
    config::{Config, Layer},
    error::Result,
    mlx::{Device, Dtype},
    weights::Weights,
};

/// An OpenELM network with its weights. Belongs to the thread that made it, as MLX arrays do.
///
/// A clone shares the weights with its original; adapters are each one's own.
#[derive(Debug, Clone)]
pub struct Model {
    config: Config,
    dtype: Dtype,
    token_embeddings: Linear,
    layers: Vec<DecoderLayer>,
    norm: RmsNorm,
    head: Linear,
    rope: Rope,
    pub(crate) adapters: Attached,
}

impl Model {
    /// Builds the network from `weights`, which must be of type `dtype`.
    ///
    /// # Errors
    /// [`crate::error::Error::MissingTensor`] or [`crate::error::Error::TensorShape`] if the weights are not
    /// those of `config`.
    pub fn new(config: Config, mut weights: Weights, dtype: Dtype) -> Result<Self> {
        let width = config.model_dim();
        let vocab = config.vocab_size();
        let token_embeddings = weights.take_matrix("transformer.token_embeddings", vocab, width)?;
        let head = if config.share_input_output_layers() {
            token_embeddings.clone()
        } else {
            weights.take_matrix("lm_head", vocab, width)?
        };
        let layers = config
            .layers()
            .iter()
            .enumerate()
            .map(|(i, layer)| DecoderLayer::new(&config, layer, i, &mut weights))
            .collect::<Result<_>>()?;
        Ok(Self {
            norm: RmsNorm::new(&config, "transformer.norm", &mut weights)?,
            head,
            rope: Rope::new(
                config.head_dim(),
                config.rope_freq_constant(),
                Device::current()?,
            ),
            token_embeddings,
            layers,
            dtype,
            config,
            adapters: Attached::default(),
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
    /// [`crate::error::Error::Mlx`] if the shapes do not fit.
    pub fn hidden(&self, tokens: &Array, cache: &mut KvCache) -> Result<Array> {
        let (offset, length) = (cache.offset(), tokens.dim(1) as usize);
        let rotation = self.rope.at(offset, length);
        let mut x = self.token_embeddings.rows(tokens, self.dtype)?;
        for (layer, cache) in self.layers.iter().zip(cache.layers_mut()) {
            x = layer.forward(&x, &rotation, Some(cache), offset, None)?;
        }
        cache.advance(length);
        self.norm.forward(&x)
    }

    /// As [`hidden`](Self::hidden) of whole sequences, keeping no keys and values: for training.
    /// A `mask` `[B, 1, L, L]` of the model's type, which is added to the scores, takes the place of
    /// the causal one. Positions count on where it begins anew: rotations are relative.
    pub(crate) fn hidden_of(&self, tokens: &Array, mask: Option<&Array>) -> Result<Array> {
        let mut x = self.embed(tokens)?;
        for index in 0..self.layers.len() {
            x = self.layer(index, &x, mask)?;
        }
        self.normed(&x)
    }

    /// The embeddings `[B, L, D]` of `tokens` `[B, L]`.
    pub(crate) fn embed(&self, tokens: &Array) -> Result<Array> {
        self.token_embeddings.rows(tokens, self.dtype)
    }

    /// What the layer `index` makes of whole sequences `x` `[B, L, D]`.
    pub(crate) fn layer(&self, index: usize, x: &Array, mask: Option<&Array>) -> Result<Array> {
        let rotation = self.rope.at(0, x.dim(1) as usize);
        match self.layers.get(index) {
            Some(layer) => layer.forward(x, &rotation, None, 0, mask),
            None => Ok(x.clone()),
        }
    }

    /// The final norm of the last layer's `x` `[B, L, D]`.
    pub(crate) fn normed(&self, x: &Array) -> Result<Array> {
        self.norm.forward(x)
    }

    /// What makes logits of hidden states.
    pub(crate) fn head(&self) -> &Linear {
        &self.head
    }

    /// Calls `visit` with the name of every matrix, its tensor's without `.weight`; a tied head is
    /// visited as `lm_head` too, for what is added to it.
    pub(crate) fn visit_linears(&mut self, visit: &mut LinearVisitor<'_>) -> Result<()> {
        visit("transformer.token_embeddings", &mut self.token_embeddings)?;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let mut below = |name: &str, linear: &mut Linear| visit(&layer_name(i, name), linear);
            layer.attn.visit_linears(&mut below)?;
            layer.ffn.visit_linears(&mut below)?;
        }
        visit("lm_head", &mut self.head)
    }

    /// Calls `visit` with the name of every norm, its tensor's without `.weight`.
    pub(crate) fn visit_norms(&mut self, visit: &mut NormVisitor<'_>) -> Result<()> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let mut below = |name: &str, norm: &mut Array| visit(&layer_name(i, name), norm);
            below("attn_norm", &mut layer.attn_norm.weight)?;
            layer.attn.visit_norms(&mut below)?;
            below("ffn_norm", &mut layer.ffn_norm.weight)?;
        }
        visit("transformer.norm", &mut self.norm.weight)?;
        Ok(())
    }

    /// Replaces weights: `replacement` is asked for each by its tensor's name. Packed matrices are
    /// not asked for.
    pub(crate) fn replace_weights(
        &mut self,
        replacement: &mut dyn FnMut(&str, &Array) -> Option<Array>,
    ) -> Result<()> {
        let tied = self.config.share_input_output_layers();
        self.visit_linears(&mut |name, linear| {
            if let (Matrix::Dense(weight), false) = (&mut linear.matrix, tied && name == "lm_head")
                && let Some(new) = replacement(&format!("{name}.weight"), weight)
            {
                *weight = new;
            }
            Ok(())
        })?;
        if tied {
            self.head.matrix = self.token_embeddings.matrix.clone();
        }
        self.visit_norms(&mut |name, weight| {
            let new = replacement(&format!("{name}.weight"), weight);
            let changed = new.is_some();
            if let Some(new) = new {
                *weight = new;
            }
            Ok(changed)
        })
    }

    /// Next-token logits `[..., V]` of hidden states `[..., D]`.
    ///
    /// # Errors
    /// [`crate::error::Error::Mlx`] if the shapes do not fit.
    pub fn logits(&self, hidden: &Array) -> Result<Array> {
        self.head.forward(hidden)
    }
}

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
        let layer = DecoderLayer::new(&self.config, sizes, index, weights)?;
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

#[derive(Debug, Clone)]
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
        cache: Option<&mut LayerCache>,
        offset: usize,
        mask: Option<&Array>,
    ) -> Result<Array> {
        // Whole sequences, with no cache, are what is trained on.
        let trained = cache.is_none();
        let normed = self.attn_norm.forward(x)?;
        let attended = self.attn.forward(&normed, rotation, cache, offset, mask)?;
        let x = x.add(attended)?;
        Ok(x.add(self.ffn.forward(&self.ffn_norm.forward(&x)?, trained)?)?)
    }
}

fn layer_name(index: usize, name: &str) -> String {
    format!("transformer.layers.{index}.{name}")
}

/// RMSNorm over the last axis; MLX squares in f32 whatever the type.
#[derive(Debug, Clone)]
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
