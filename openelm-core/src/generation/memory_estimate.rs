//! An estimate of a model's memory from its file headers.

use std::path::Path;

use super::{language_model::LoadOptions, options::default_prefill_chunk};
use crate::{
    config::Config,
    error::Result,
    mlx::{Device, Dtype},
    weights::{Allocation, Checkpoint, ReadOptions, model_folder},
};

/// Tokens of the shortest text for which a loaded model must have memory.
const SHORT_TEXT: usize = 256;

/// The memory of a loaded model that generates, in bytes. The estimate is an upper bound, for the
/// check that a model fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// Weights in the dtype of the computation.
    pub weights: u64,
    /// Keys and values of one sequence.
    pub kv_cache: u64,
    /// Temporary arrays while a chunk of the prompt is read.
    pub working: u64,
}

impl MemoryEstimate {
    /// The estimate for the model folder `path`, loaded with `options`, and one sequence of
    /// `context` tokens; `None` is the model's context length. No weights are read.
    ///
    /// # Errors
    /// As [`LanguageModel::load`](crate::generation::language_model::LanguageModel::load) for the
    /// configuration and the headers of the weight files.
    pub fn of(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        context: Option<usize>,
    ) -> Result<Self> {
        let folder = model_folder(path)?;
        let config = Config::load(&folder)?;
        let checkpoint = Checkpoint::open(&folder)?;
        checkpoint.check(&config)?;
        let read_options = options.read_options(checkpoint.dtype(), &config)?;
        let dtype = read_options.dtype;
        let is_quantized = config.quantization_map()?.is_some();
        let is_kept = read_options.keep_quantized && is_quantized
            || read_options.keeps_half_precision(Device::current()?);
        let weights = if is_kept {
            checkpoint.bytes() as u64
        } else {
            config.weights_bytes(dtype.size() as u64)
        };
        Self::with_weights(weights, &config, dtype, context)
    }

    fn with_weights(
        weights: u64,
        config: &Config,
        dtype: Dtype,
        context: Option<usize>,
    ) -> Result<Self> {
        let longest = config.max_context_length();
        let context = context.map_or(longest, |tokens| tokens.min(longest)) as u64;
        Ok(Self {
            weights,
            kv_cache: kv_cache_bytes(config, dtype, context),
            working: working_bytes(config, dtype, context)?,
        })
    }

    /// Refuses to read the weights of `checkpoint` if they and the generation of a short text do
    /// not fit into the memory that the system has left. Weights that are mapped from their file
    /// need none.
    ///
    /// # Errors
    /// [`Error::Memory`](crate::error::Error::Memory).
    pub(super) fn check_fits(
        checkpoint: &Checkpoint,
        config: &Config,
        options: ReadOptions,
    ) -> Result<()> {
        let allocation = Allocation::of(checkpoint, config, options, Device::current()?)?;
        let text = Self::with_weights(0, config, options.dtype, Some(SHORT_TEXT))?;
        allocation.check_fits(checkpoint.folder(), options.dtype, text.total())
    }

    /// The sum.
    pub fn total(&self) -> u64 {
        let parts = [self.weights, self.kv_cache, self.working];
        parts.into_iter().fold(0, u64::saturating_add)
    }
}

/// Buffers grow in steps; while a layer's buffer grows, both old and new exist.
fn kv_cache_bytes(config: &Config, dtype: Dtype, context: u64) -> u64 {
    const STEP: u64 = 256;
    let kept = context.div_ceil(STEP) * STEP;
    let bytes = config.kv_bytes_per_token(dtype.size() as u64);
    let layers = config.num_transformer_layers().max(1) as u64;
    bytes.saturating_mul(kept).saturating_mul(layers + 1) / layers
}

/// Bytes of a chunk: the widest FFN (gate, up and their product), queries, keys and values twice
/// (rotated and not), some arrays of the model's width, the attention scores of one layer, and one
/// token's sorted f32 logits for the draw.
fn working_bytes(config: &Config, dtype: Dtype, context: u64) -> Result<u64> {
    let chunk = (default_prefill_chunk(Device::current()?) as u64).min(context);
    let widest = |of: &dyn Fn(&crate::config::Layer) -> usize| {
        config.layers().iter().map(of).max().unwrap_or(0) as u64
    };
    let ffn = 3 * widest(&|layer| layer.ffn_dim);
    let head_dim = config.head_dim();
    let qkv = 2 * widest(&|layer| (layer.q_heads + 2 * layer.kv_heads) * head_dim);
    let scores = 2 * widest(&|layer| layer.q_heads) * context;
    let of_token = ffn + qkv + scores + 4 * config.model_dim() as u64;
    let logits = 8 * 4 * config.vocab_size() as u64;
    Ok(chunk * of_token * dtype.size() as u64 + logits)
}
