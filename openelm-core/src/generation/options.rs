//! Options of a generation.

use super::sampling::Sampling;
use crate::{mlx::Device, model::KvCacheOptions};

/// Options of one generation.
#[derive(Debug, Clone, PartialEq)]
pub struct GenerateOptions {
    /// Largest number of tokens to generate. Default 256.
    pub max_tokens: usize,
    /// Sampling of the tokens. Default greedy.
    pub sampling: Sampling,
    /// Strings that end the text; they are not part of it. Default none.
    pub stop: Vec<String>,
    /// Number of most likely tokens to report at each step, with log-probabilities. Default 0.
    pub logprobs: usize,
    /// Prompt tokens per chunk. `None`, the default, is 128 on a CPU, where smaller chunks save
    /// work above the diagonal, and on iOS, where the system gives an app that enters the
    /// background few seconds to end a chunk; 512 on other GPUs.
    pub prefill_chunk: Option<usize>,
    /// Continue after the end-of-sequence token. Default false.
    pub ignore_eos: bool,
    /// Kind of the key-value cache. Default plain. With a rotating cache, the model's context does
    /// not limit the prompt and the text: positions continue after it, as in mlx-lm.
    pub kv_cache: KvCacheOptions,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        Self {
            max_tokens: 256,
            sampling: Sampling::default(),
            stop: Vec::new(),
            logprobs: 0,
            prefill_chunk: None,
            ignore_eos: false,
            kv_cache: KvCacheOptions::default(),
        }
    }
}

/// Prompt tokens per chunk, if the options give none.
pub(super) fn default_prefill_chunk(device: Device) -> usize {
    match device {
        Device::Gpu if !cfg!(target_os = "ios") => 512,
        _ => 128,
    }
}
