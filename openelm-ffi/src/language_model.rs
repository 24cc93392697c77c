//! A loaded model: its properties, text generation and tokenizer. Its adapters are in
//! `adapters.rs`.

use std::sync::Arc;

use openelm_core::engine::ModelHandle;

use crate::{
    error::Result,
    finetune_options::FinetuneOptions,
    generation::GenerationStream,
    generation_options::{GenerationOptions, RequestOptions},
};

/// A loaded model. Dropping the last handle unloads it.
#[derive(Debug, uniffi::Object)]
pub struct LanguageModel {
    model: ModelHandle,
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
        let info = self.model.info();
        Ok(ModelInfo {
            parameter_count: info.config.parameter_count(),
            max_context_length: info.config.max_context_length() as u64,
            vocab_size: info.config.vocab_size() as u64,
            num_transformer_layers: info.config.num_transformer_layers() as u64,
            dtype: info.dtype.to_string(),
            device: info.device.to_string(),
            warnings: info.warnings.clone(),
        })
    }

    /// Continues `prompt`.
    ///
    /// # Errors
    /// Errors of the prompt and the options are the stream's first event.
    pub fn generate(
        &self,
        prompt: String,
        options: GenerationOptions,
        with: RequestOptions,
    ) -> Result<Arc<GenerationStream>> {
        let events = self
            .model
            .generate_with(prompt, options.into(), with.into())?;
        GenerationStream::new(events)
    }

    /// The token ids of `text`. With `prompt`, the ids that the model reads, BOS first.
    ///
    /// # Errors
    /// [`Error::InvalidTokenizer`](crate::Error::InvalidTokenizer).
    pub fn encode(&self, text: String, prompt: bool) -> Result<Vec<u32>> {
        Ok(if prompt {
            self.model.tokenizer().encode_prompt(&text)?
        } else {
            self.model.tokenizer().encode(&text)?
        })
    }

    /// The text of the token ids.
    ///
    /// # Errors
    /// [`Error::InvalidTokenizer`](crate::Error::InvalidTokenizer) for an id outside the vocabulary.
    pub fn decode(&self, ids: Vec<u32>) -> Result<String> {
        Ok(self.model.tokenizer().decode(&ids)?)
    }

    /// The vocabulary entry of `id`.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn piece(&self, id: u32) -> Result<Option<String>> {
        Ok(self.model.tokenizer().piece(id).map(str::to_owned))
    }

    /// Reads and generates a few tokens, so that MLX loads or compiles its GPU kernels now.
    ///
    /// # Errors
    /// [`Error::Unloaded`](crate::Error::Unloaded), [`Error::Device`](crate::Error::Device).
    pub async fn warm_up(&self) -> Result<()> {
        Ok(self.model.warm_up().await?)
    }

    /// An upper estimate, in bytes, of the memory of a fine-tuning beside the model's weights.
    ///
    /// # Errors
    /// [`Error::InvalidOption`](crate::Error::InvalidOption).
    pub async fn finetune_memory(&self, options: FinetuneOptions) -> Result<u64> {
        let (run, rows, adapter) = ((&options).into(), (&options).into(), (&options).into());
        let estimate = self.model.finetune_memory(run, rows, adapter);
        Ok(estimate.await?.total())
    }

    /// Unloads the model and frees its memory. Tasks that use it end with
    /// [`Error::Unloaded`](crate::Error::Unloaded). A second call has no effect.
    ///
    /// # Errors
    /// [`Error::Device`](crate::Error::Device).
    pub async fn unload(&self) -> Result<()> {
        Ok(self.model.unload().await?)
    }
}

impl LanguageModel {
    pub(crate) fn new(model: ModelHandle) -> Self {
        Self { model }
    }

    /// The engine's handle.
    pub(crate) fn handle(&self) -> &ModelHandle {
        &self.model
    }
}
