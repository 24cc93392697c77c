//! The OpenELM decoder: pre-norm layers of varying width over a tied embedding
//! (arXiv 2404.14619, section 2.1; CoreNet `general_gpt.py`).
//!
//! Shapes: `B` batch, `L` length, `D` model width, `V` vocabulary.

use mlx_rs::Array;

use super::{
    adapters::Attached,
    attention::Attention,
    block::TransformerBlock,
    forward_context::{ForwardContext, Segment, window_mask},
    kv_cache::{KvCache, KvCacheOptions},
    linear::{Linear, LinearVisitor, NormVisitor},
    rms_norm::RmsNorm,
    rope::Rope,
};
use crate::{
    config::{
        Config,
        tensor_names::{self, ATTN_NORM, EMBEDDING, FFN_NORM, FINAL_NORM, HEAD},
    },
    error::{Error, Result},
    mlx::{Device, Dtype, Matrix, evaluation},
    weights::Weights,
};

/// An OpenELM network with its weights. Belongs to the thread that made it, as MLX arrays do.
///
/// A clone shares the weights with its original; each has its own adapters.
#[derive(Debug, Clone)]
pub struct Model {
    config: Config,
    dtype: Dtype,
    token_embeddings: Linear,
    layers: Vec<TransformerBlock>,
    norm: RmsNorm,
    head: Linear,
    rope: Rope,
    pub(crate) adapters: Attached,
}

impl Model {
    /// Builds the network from `weights`, which must be of type `dtype`; matrices may have 16 bits if
    /// `dtype` is `Float32` on a CPU.
    ///
    /// # Errors
    /// [`Error::MissingTensor`] or [`Error::TensorShape`] if the weights do not match `config`.
    pub fn new(config: Config, mut weights: Weights, dtype: Dtype) -> Result<Self> {
        let width = config.model_dim();
        let vocab = config.vocab_size();
        let token_embeddings = Linear::new(weights.take_matrix(EMBEDDING, vocab, width)?);
        let head = if config.share_input_output_layers() {
            token_embeddings.clone()
        } else {
            Linear::new(weights.take_matrix(HEAD, vocab, width)?)
        };
        let layers = config
            .layers()
            .iter()
            .enumerate()
            .map(|(i, layer)| TransformerBlock::new(&config, layer, i, &mut weights))
            .collect::<Result<Vec<_>>>()?;
        let device = Device::current()?;
        if device == Device::Gpu && config.normalize_qk_projections() {
            let attentions = layers.iter().map(|layer| &layer.attn);
            evaluation::complete(attentions.filter_map(Attention::derived_weight))?;
        }
        Ok(Self {
            norm: RmsNorm::new(&config, FINAL_NORM, &mut weights)?,
            head,
            rope: Rope::new(config.head_dim(), config.rope_freq_constant(), device),
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

    /// The type of activations and, but for matrices that stay in 16 bits, of weights.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Chooses MLX's fused attention, the default, or single operations, which are slower. They are
    /// for a GPU whose fused kernel gives wrong results, see
    /// <https://github.com/ml-explore/mlx/issues/4022>.
    pub fn set_fused_attention(&mut self, fused: bool) {
        for layer in &mut self.layers {
            layer.attn.set_fused(fused);
        }
    }

    /// An empty cache for one sequence, or for several of the same length.
    pub fn cache(&self) -> KvCache {
        KvCache::new(self.layers.len(), KvCacheOptions::default())
    }

    /// An empty cache of the kind that `options` select.
    ///
    /// # Errors
    /// [`Error::Option`] if an option is out of range or does not fit the model.
    pub fn cache_with(&self, options: &KvCacheOptions) -> Result<KvCache> {
        options.check_for(self.config.head_dim())?;
        Ok(KvCache::new(self.layers.len(), *options))
    }

    /// Final hidden states `[B, L, D]` of `tokens` `[B, L]` (integers below `V`), which continue
    /// the sequence in `cache`; their keys and values are added to it.
    ///
    /// The result is lazy: nothing is computed until it is evaluated.
    ///
    /// # Errors
    /// [`Error::Mlx`] if the shapes do not fit, [`Error::Option`] if `cache` is for another model.
    pub fn hidden(&self, tokens: &Array, cache: &mut KvCache) -> Result<Array> {
        self.hidden_cached(tokens, &[tokens.dim(1) as usize], &mut [cache])
    }

    /// Final hidden states `[1, L, D]` of `tokens` `[1, L]`, which continue several sequences: the
    /// first `lengths[0]` tokens that of `caches[0]`, and so on. `L` is the sum of `lengths`. The
    /// projections are computed for all tokens at once, the attention for each sequence.
    ///
    /// # Errors
    /// As [`hidden`](Self::hidden).
    pub fn hidden_of_sequences(
        &self,
        tokens: &Array,
        lengths: &[usize],
        caches: &mut [&mut KvCache],
    ) -> Result<Array> {
        let total: usize = lengths.iter().sum();
        if tokens.shape() != [1, total as i32] || lengths.len() != caches.len() {
            let problem = format!(
                "expected the tokens of {} sequences, {total} in all, found the shape {:?} and {} \
                 lengths",
                caches.len(),
                tokens.shape(),
                lengths.len()
            );
            return Err(Error::option("tokens", problem));
        }
        self.hidden_cached(tokens, lengths, caches)
    }

    fn hidden_cached(
        &self,
        tokens: &Array,
        lengths: &[usize],
        caches: &mut [&mut KvCache],
    ) -> Result<Array> {
        let mut segments = Vec::with_capacity(caches.len());
        let mut masks = Vec::with_capacity(caches.len());
        for (cache, &length) in caches.iter_mut().zip(lengths) {
            let offset = cache.offset();
            segments.push(Segment { offset, length });
            let window = cache.window(length);
            masks.push(window.map(|w| window_mask(w, self.dtype)).transpose()?);
        }
        let context = ForwardContext::cached(&self.rope, segments, masks);
        self.hidden_in(tokens, &context, caches)
    }

    /// Final hidden states `[1, L, D]` of `tokens` `[1, L]` in `context`, which has a segment for
    /// each cache.
    pub(super) fn hidden_in(
        &self,
        tokens: &Array,
        context: &ForwardContext<'_>,
        caches: &mut [&mut KvCache],
    ) -> Result<Array> {
        for cache in caches.iter_mut() {
            let (found, layers) = (cache.layers_mut().len(), self.layers.len());
            if found != layers {
                let problem = format!("expected one for {layers} layers, found one for {found}");
                return Err(Error::option("cache", problem));
            }
        }
        let mut x = self.embed(tokens)?;
        for (index, layer) in self.layers.iter().enumerate() {
            let of_layer = caches
                .iter_mut()
                .map(|cache| cache.layers_mut().get_mut(index));
            let mut of_layer: Vec<_> = of_layer.flatten().collect();
            x = layer.forward(&x, context, &mut of_layer)?;
        }
        for (cache, segment) in std::iter::zip(caches, &context.segments) {
            cache.advance(segment.length)?;
        }
        self.norm.forward(&x)
    }

    /// Like [`hidden`](Self::hidden) for whole sequences, without a cache: for training. A `mask`
    /// `[B, 1, L, L]` of the model's type is added to the scores in place of the causal one.
    /// Positions continue across its sections, because rotations are relative.
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

    /// The output `[B, L, D]` of the layer `index` for whole sequences `x` `[B, L, D]`.
    ///
    /// # Errors
    /// [`Error::Mlx`] if the shapes do not fit, [`Error::Option`] if there is no such layer.
    pub(crate) fn layer(&self, index: usize, x: &Array, mask: Option<&Array>) -> Result<Array> {
        let context = ForwardContext::whole(&self.rope, x.dim(1) as usize, mask);
        let layer = self.layers.get(index).ok_or_else(|| no_layer(index))?;
        layer.forward(x, &context, &mut [])
    }

    /// The final norm of the last layer's output `x` `[B, L, D]`.
    pub(crate) fn normed(&self, x: &Array) -> Result<Array> {
        self.norm.forward(x)
    }

    /// The rotary embedding.
    pub(super) fn rope(&self) -> &Rope {
        &self.rope
    }

    /// The output head.
    pub(crate) fn head(&self) -> &Linear {
        &self.head
    }

    /// Calls `visit` with the name of every matrix (its tensor's name without `.weight`); a tied
    /// head is also visited as `lm_head`, for its adapters.
    pub(crate) fn visit_linears(&mut self, visit: &mut LinearVisitor<'_>) -> Result<()> {
        visit(EMBEDDING, &mut self.token_embeddings)?;
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let mut below =
                |name: &str, linear: &mut Linear| visit(&tensor_names::layer(i, name), linear);
            layer.attn.visit_linears(&mut below)?;
            layer.ffn.visit_linears(&mut below)?;
        }
        visit(HEAD, &mut self.head)
    }

    /// Calls `visit` with the name of every norm (its tensor's name without `.weight`).
    pub(crate) fn visit_norms(&mut self, visit: &mut NormVisitor<'_>) -> Result<()> {
        for (i, layer) in self.layers.iter_mut().enumerate() {
            let mut below =
                |name: &str, norm: &mut Array| visit(&tensor_names::layer(i, name), norm);
            below(ATTN_NORM, &mut layer.attn_norm.weight)?;
            layer.attn.visit_norms(&mut below)?;
            below(FFN_NORM, &mut layer.ffn_norm.weight)?;
        }
        visit(FINAL_NORM, &mut self.norm.weight)?;
        Ok(())
    }

    /// Expands matrices that are stored in 16 bits to the model's type, to train them.
    pub(crate) fn expand_stored(&mut self) -> Result<()> {
        let dtype = self.dtype.mlx();
        self.visit_linears(&mut |_, linear| {
            if let Matrix::Stored(weight) = &linear.matrix {
                linear.matrix = Matrix::Dense(weight.as_dtype(dtype)?);
            }
            Ok(())
        })?;
        if self.config.share_input_output_layers() {
            self.head.matrix = self.token_embeddings.matrix.clone();
        }
        Ok(())
    }

    /// Replaces each weight for which `replacement` returns one for its tensor name. Quantised
    /// matrices are skipped.
    pub(crate) fn replace_weights(
        &mut self,
        replacement: &mut dyn FnMut(&str, &Array) -> Option<Array>,
    ) -> Result<()> {
        let tied = self.config.share_input_output_layers();
        self.visit_linears(&mut |name, linear| {
            if let (Matrix::Dense(weight) | Matrix::Stored(weight), false) =
                (&mut linear.matrix, tied && name == HEAD)
                && let Some(new) = replacement(&tensor_names::weight(name), weight)
            {
                *weight = new;
            }
            Ok(())
        })?;
        if tied {
            self.head.matrix = self.token_embeddings.matrix.clone();
        }
        self.visit_norms(&mut |name, weight| {
            let new = replacement(&tensor_names::weight(name), weight);
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
    /// [`Error::Mlx`] if the shapes do not fit.
    pub fn logits(&self, hidden: &Array) -> Result<Array> {
        self.head.forward(hidden)
    }
}

/// The error of a layer that the model does not have.
pub(super) fn no_layer(index: usize) -> Error {
    Error::option("layer", format!("the model has no layer {index}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{LayerWiseConfig, Preset},
        mlx::{compiles, launches},
        weights::random_weights,
    };

    /// Launches of a decoding step with the GPU's code.
    fn decode_launches(layers: usize) -> usize {
        let config = Config::layer_wise(LayerWiseConfig {
            num_transformer_layers: layers,
            model_dim: 64,
            head_dim: 16,
            vocab_size: 50,
            ..Preset::Size270M.settings()
        })
        .unwrap();
        let dtype = Dtype::Bfloat16;
        let weights = random_weights(&config, dtype, 1).unwrap();
        let model = Model::new(config, weights, dtype).unwrap();
        let mut cache = model.cache();
        let token = Array::from_slice(&[3_u32], &[1, 1]);
        let mut step = || {
            let hidden = model.hidden(&token, &mut cache).unwrap();
            model.logits(&hidden).unwrap()
        };
        step().eval().unwrap();
        launches(&[step()])
    }

    #[test]
    fn decoding_launches_per_layer_have_a_ceiling() {
        let _gpu = Device::Gpu.select();
        // SwiGLU is three operations where MLX compiles nothing.
        let most = if compiles() { 55 } else { 57 };
        let per_layer = decode_launches(3) - decode_launches(2);
        assert!(per_layer <= most, "{per_layer}");
    }
}
