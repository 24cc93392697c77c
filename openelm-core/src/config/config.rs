//! The architecture of an OpenELM model, read from its `config.json`.
//!
//! Key names, defaults and the layer-wise scaling follow Apple's `configuration_openelm.py` on
//! Hugging Face, and the files load in mlx-lm; OpenELM, <https://arxiv.org/abs/2404.14619>.
//! D is `model_dim`, V `vocab_size`, d `head_dim`, H query heads, K KV heads, I the FFN's inner
//! width; weights are stored `[out, in]`.

use std::path::Path;

use serde_json::{Map, Value};

use super::{
    layer_wise::LayerWiseConfig,
    scaling::{Multipliers, ffn_dim, kv_heads, query_heads},
};
use crate::{
    error::{Error, Result},
    mlx::QuantizationMap,
};

/// A validated OpenELM architecture: its settings are consistent and within MLX's limits.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub(crate) settings: LayerWiseConfig,
    pub(crate) layers: Vec<Layer>,
    /// True if the heads are computed from `settings`; otherwise the file lists them.
    pub(crate) heads_scaled: bool,
    /// The keys of `config.json` that do not decide the architecture.
    pub(crate) extra: Map<String, Value>,
}

/// The sizes that differ between layers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Query heads, a multiple of `kv_heads`.
    pub q_heads: usize,
    /// Key heads; the number of value heads is the same.
    pub kv_heads: usize,
    /// Inner width I of the FFN.
    pub ffn_dim: usize,
}

impl Config {
    /// Computes heads and FFN widths of a custom model.
    ///
    /// # Errors
    ///
    /// [`Error::Config`] naming the setting that is out of range.
    pub fn layer_wise(settings: LayerWiseConfig) -> Result<Self> {
        let path = Path::new("config");
        settings.check(path)?;
        Self::scale(settings).check_sizes(path)
    }

    /// Computes the layers from settings that are within their ranges.
    pub(crate) fn scale(settings: LayerWiseConfig) -> Self {
        let LayerWiseConfig {
            model_dim,
            head_dim,
            num_gqa_groups,
            ..
        } = settings;
        let count = settings.num_transformer_layers;
        let layers = std::iter::zip(
            settings.qkv_multipliers.per_layer(count),
            settings.ffn_multipliers.per_layer(count),
        )
        .map(|(qkv_multiplier, ffn_multiplier)| {
            let q_heads = query_heads(model_dim, head_dim, num_gqa_groups, qkv_multiplier);
            Layer {
                q_heads,
                kv_heads: kv_heads(q_heads, num_gqa_groups),
                ffn_dim: ffn_dim(model_dim, settings.ffn_dim_divisor, ffn_multiplier),
            }
        })
        .collect();
        Self {
            settings,
            layers,
            heads_scaled: true,
            extra: Map::new(),
        }
    }

    /// The architecture with another number of embedding rows, within the range of the settings.
    ///
    /// # Errors
    /// [`Error::Config`] if a tensor is then too large.
    pub(crate) fn with_vocab_size(mut self, vocab_size: usize) -> Result<Self> {
        self.settings.vocab_size = vocab_size;
        self.check_sizes(Path::new("config"))
    }

    /// The sizes of each layer, first to last.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// Width D of the residual stream.
    pub fn model_dim(&self) -> usize {
        self.settings.model_dim
    }

    /// Number of layers.
    pub fn num_transformer_layers(&self) -> usize {
        self.layers.len()
    }

    /// Width d of a head; even.
    pub fn head_dim(&self) -> usize {
        self.settings.head_dim
    }

    /// Rows V of the embedding.
    pub fn vocab_size(&self) -> usize {
        self.settings.vocab_size
    }

    /// Context length of the training, in tokens.
    pub fn max_context_length(&self) -> usize {
        self.settings.max_context_length
    }

    /// Initial length of the rotary tables, in positions; not a limit.
    pub fn rope_max_length(&self) -> usize {
        self.settings.rope_max_length
    }

    /// Base of the rotary frequencies.
    pub fn rope_freq_constant(&self) -> f64 {
        self.settings.rope_freq_constant
    }

    /// The epsilon of RMSNorm, added to the mean square.
    pub fn rms_norm_eps(&self) -> f64 {
        self.settings.rms_norm_eps
    }

    /// True if the FFN is gated: `proj_1` then holds gate and value, 2 I rows.
    pub fn ffn_with_glu(&self) -> bool {
        self.settings.ffn_with_glu
    }

    /// True if queries and keys are normalised by RMSNorm.
    pub fn normalize_qk_projections(&self) -> bool {
        self.settings.normalize_qk_projections
    }

    /// True if the output head is the embedding.
    pub fn share_input_output_layers(&self) -> bool {
        self.settings.share_input_output_layers
    }

    /// The divisor of the FFN's inner widths.
    pub fn ffn_dim_divisor(&self) -> usize {
        self.settings.ffn_dim_divisor
    }

    /// FFN multipliers as in the settings.
    pub fn ffn_multipliers(&self) -> &Multipliers {
        &self.settings.ffn_multipliers
    }

    /// Multipliers from which the heads are computed; `None` if the file only lists heads.
    pub fn qkv_multipliers(&self) -> Option<&Multipliers> {
        self.heads_scaled.then_some(&self.settings.qkv_multipliers)
    }

    /// Query heads per KV head, if stated.
    pub fn num_gqa_groups(&self) -> Option<usize> {
        self.settings.num_gqa_groups
    }

    /// Id of the token that starts a text, below `vocab_size`.
    pub fn bos_token_id(&self) -> usize {
        self.settings.bos_token_id
    }

    /// Id of the token that ends a text, below `vocab_size`.
    pub fn eos_token_id(&self) -> usize {
        self.settings.eos_token_id
    }

    /// Type of the stored weights: the text of the `torch_dtype` or `dtype` key.
    pub fn torch_dtype(&self) -> Option<&str> {
        ["torch_dtype", "dtype"]
            .iter()
            .find_map(|key| self.extra.get(*key)?.as_str())
    }

    /// The quantised matrices, by the `quantization` (or `quantization_config`) block;
    /// `None` if there is no block.
    ///
    /// # Errors
    /// [`Error::Config`] if MLX does not support the block.
    pub fn quantization_map(&self) -> Result<Option<QuantizationMap>> {
        let Some(block) = self.quantization() else {
            return Ok(None);
        };
        QuantizationMap::from_json(block)
            .map(Some)
            .map_err(|problem| Error::config("config.json", "quantization", problem))
    }

    /// The `quantization` (or `quantization_config`) block, not validated.
    pub fn quantization(&self) -> Option<&Value> {
        let mut blocks = ["quantization", "quantization_config"].iter();
        blocks.find_map(|key| self.extra.get(*key).filter(|block| !block.is_null()))
    }

    /// The other keys of `config.json`, such as `architectures` and `transformers_version`,
    /// including the keys of [`torch_dtype`](Self::torch_dtype) and
    /// [`quantization`](Self::quantization).
    pub fn extra(&self) -> &Map<String, Value> {
        &self.extra
    }
}
