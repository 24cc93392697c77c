//! A loaded model.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use openelm_core::{Device, LanguageModel, Tokenizer};

use crate::{
    error::{EngineError, Result},
    generation::{GenerationOptions, GenerationStream},
    worker,
};

/// A loaded model. Dropping the last handle unloads it.
#[derive(Debug, uniffi::Object)]
pub struct Engine {
    number: u64,
    info: ModelInfo,
    tokenizer: Tokenizer,
    unloaded: AtomicBool,
}

/// What a model is.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
pub struct ModelInfo {
    /// Parameters.
    pub parameters: u64,
    /// Most tokens of prompt and answer together.
    pub context: u64,
    /// Tokens of the vocabulary.
    pub vocabulary: u64,
    /// Layers.
    pub layers: u64,
    /// The type it computes in: `float32`, `float16` or `bfloat16`.
    pub dtype: String,
    /// What it runs on: `cpu` or `gpu`.
    pub device: String,
}

#[uniffi::export]
impl Engine {
    /// What the model is.
    ///
    /// # Errors
    /// None but a panic.
    pub fn info(&self) -> Result<ModelInfo> {
        Ok(self.info.clone())
    }

    /// Continues `prompt`.
    ///
    /// # Errors
    /// Those of the prompt and the options come as the stream's first event.
    pub fn generate(
        &self,
        prompt: String,
        options: GenerationOptions,
    ) -> Result<Arc<GenerationStream>> {
        GenerationStream::start(self.number, None, prompt, options).map(Arc::new)
    }

    /// The ids of `text`; with `prompt`, as they are put before the model, BOS first.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`].
    pub fn encode(&self, text: String, prompt: bool) -> Result<Vec<u32>> {
        Ok(match prompt {
            true => self.tokenizer.encode_prompt(&text)?,
            false => self.tokenizer.encode(&text)?,
        })
    }

    /// The text of `ids`.
    ///
    /// # Errors
    /// [`EngineError::Tokenizer`] for an id that the vocabulary has not.
    pub fn decode(&self, ids: Vec<u32>) -> Result<String> {
        Ok(self.tokenizer.decode(&ids)?)
    }

    /// The piece that the vocabulary has for `id`.
    ///
    /// # Errors
    /// None but a panic.
    pub fn piece(&self, id: u32) -> Result<Option<String>> {
        Ok(self.tokenizer.piece(id).map(str::to_owned))
    }

    /// Unloads the model and gives its memory back; what runs with it ends with
    /// [`EngineError::Unloaded`]. Done again it does nothing.
    ///
    /// # Errors
    /// [`EngineError::Mlx`].
    pub async fn unload(&self) -> Result<()> {
        if self.unloaded.swap(true, Ordering::SeqCst) {
            return Ok(());
        }
        let number = self.number;
        worker::call_always(move |models| {
            if models.unload(number) {
                openelm_core::memory::clear_cache()?;
            }
            Ok(())
        })
        .await
    }
}

impl Engine {
    /// The handle of `model`, which the worker keeps as `number`.
    pub(crate) fn of(model: &LanguageModel, number: u64) -> Result<Self, EngineError> {
        let network = model.model();
        let config = network.config();
        Ok(Self {
            number,
            info: ModelInfo {
                parameters: config.parameter_count(),
                context: config.max_context_length() as u64,
                vocabulary: config.vocab_size() as u64,
                layers: config.num_transformer_layers() as u64,
                dtype: network.dtype().to_string(),
                device: Device::current()?.to_string(),
            },
            tokenizer: model.tokenizer().clone(),
            unloaded: AtomicBool::new(false),
        })
    }

    /// The number that the worker keeps the model by.
    pub(crate) fn number(&self) -> u64 {
        self.number
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if !self.unloaded.load(Ordering::SeqCst) {
            let number = self.number;
            let _ = worker::submit_always(move |models| {
                if models.unload(number) {
                    let _ = openelm_core::memory::clear_cache();
                }
            });
        }
    }
}
