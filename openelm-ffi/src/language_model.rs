//! A loaded model: its properties, text generation and tokenizer. Its adapters are in
//! `adapters.rs`.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use openelm_core::{self as core, Device, Tokenizer};

use crate::{
    error::Result,
    generation::{GenerationOptions, GenerationStream},
    worker,
};

/// A loaded model. Dropping the last handle unloads it.
#[derive(Debug, uniffi::Object)]
pub struct LanguageModel {
    id: u64,
    info: ModelInfo,
    tokenizer: Tokenizer,
    unloaded: AtomicBool,
}

/// Properties of a model.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ModelInfo {
    /// Number of parameters.
    pub parameter_count: u64,
    /// Maximum number of tokens in a prompt and its answer.
    pub max_context_length: u64,
    /// Vocabulary size.
    pub vocab_size: u64,
    /// Number of layers.
    pub num_transformer_layers: u64,
    /// Dtype of the computation: `float32`, `float16` or `bfloat16`.
    pub dtype: String,
    /// Device of the computation: `cpu` or `gpu`.
    pub device: String,
    /// Doubts about the model that are not errors, a sentence each.
    pub warnings: Vec<String>,
}

#[uniffi::export]
impl LanguageModel {
    /// The model's properties.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn info(&self) -> Result<ModelInfo> {
        Ok(self.info.clone())
    }

    /// Continues `prompt`.
    ///
    /// # Errors
    /// Errors of the prompt and the options are the stream's first event.
    pub fn generate(
        &self,
        prompt: String,
        options: GenerationOptions,
    ) -> Result<Arc<GenerationStream>> {
        GenerationStream::start(self.id, None, prompt, options).map(Arc::new)
    }

    /// The token ids of `text`. With `prompt`, the ids that the model reads, BOS first.
    ///
    /// # Errors
    /// [`Error::InvalidTokenizer`](crate::Error::InvalidTokenizer).
    pub fn encode(&self, text: String, prompt: bool) -> Result<Vec<u32>> {
        Ok(if prompt {
            self.tokenizer.encode_prompt(&text)?
        } else {
            self.tokenizer.encode(&text)?
        })
    }

    /// The text of the token ids.
    ///
    /// # Errors
    /// [`Error::InvalidTokenizer`](crate::Error::InvalidTokenizer) for an id outside the vocabulary.
    pub fn decode(&self, ids: Vec<u32>) -> Result<String> {
        Ok(self.tokenizer.decode(&ids)?)
    }

    /// The vocabulary entry of `id`.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn piece(&self, id: u32) -> Result<Option<String>> {
        Ok(self.tokenizer.piece(id).map(str::to_owned))
    }

    /// Reads and generates a few tokens, so that MLX loads or compiles its GPU kernels now.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded), [`Error::Device`](crate::Error::Device).
    pub async fn warm_up(&self) -> Result<()> {
        let id = self.id;
        worker::call(move |models| Ok(models.model(id)?.warm_up()?)).await
    }

    /// Unloads the model and frees its memory. Tasks that use it end with
    /// [`Error::Unloaded`](crate::Error::Unloaded). A second call has no effect.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    pub async fn unload(&self) -> Result<()> {
        if self.unloaded.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let id = self.id;
        worker::call_always(move |models| {
            if models.unload(id) {
                core::memory::clear_cache()?;
            }
            Ok(())
        })
        .await
    }
}

impl LanguageModel {
    /// The handle of `model`, which the worker stores under `id`.
    pub(crate) fn new(model: &core::LanguageModel, id: u64) -> Result<Self> {
        let network = model.model();
        let config = network.config();
        Ok(Self {
            id,
            info: ModelInfo {
                parameter_count: config.parameter_count(),
                max_context_length: config.max_context_length() as u64,
                vocab_size: config.vocab_size() as u64,
                num_transformer_layers: config.num_transformer_layers() as u64,
                dtype: network.dtype().to_string(),
                device: Device::current()?.to_string(),
                warnings: model.warnings(),
            },
            tokenizer: model.tokenizer().clone(),
            unloaded: AtomicBool::new(false),
        })
    }

    /// The worker's id of the model.
    pub(crate) fn id(&self) -> u64 {
        self.id
    }
}

impl Drop for LanguageModel {
    fn drop(&mut self) {
        if !self.unloaded.load(Ordering::SeqCst) {
            let id = self.id;
            // Fails only if the worker has ended.
            let _ = worker::submit_always(move |models| {
                if models.unload(id) {
                    let _ = core::memory::clear_cache();
                }
            });
        }
    }
}
