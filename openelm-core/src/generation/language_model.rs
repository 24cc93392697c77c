//! A model folder, loaded: network and tokenizer together.

use std::{
    path::{Path, PathBuf},
    thread,
};

use super::{compute_dtype::compute_dtype, generation::Generation, options::GenerateOptions};
use crate::{
    cancel::CancelHandle,
    config::Config,
    error::{Error, Result},
    mlx::{Device, Dtype, memory},
    model::Model,
    tokenizer::Tokenizer,
    weights::{Checkpoint, ReadOptions, Weights, model_folder},
};

/// Options of [`LanguageModel::load`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// The type to compute in. `None`, the default: float32 on a CPU device, the stored type on
    /// a GPU.
    pub dtype: Option<Dtype>,
    /// The tokenizer's file, or a folder that holds one. `None`, the default: the model folder.
    pub tokenizer: Option<PathBuf>,
    /// Keep quantised matrices packed. `None`, the default: on a GPU yes; on a CPU, where MLX
    /// multiplies by packed matrices many times slower than by the numbers they stand for, only if
    /// the memory for those numbers is not there.
    pub keep_quantized: Option<bool>,
}

impl LoadOptions {
    /// True if quantised matrices stay packed.
    pub(crate) fn keeps_quantized(&self, config: &Config, dtype: Dtype) -> Result<bool> {
        Ok(match self.keep_quantized {
            Some(keep) => keep,
            None => Device::current()? == Device::Gpu || !fits(config, dtype),
        })
    }
}

/// A loaded OpenELM: network and tokenizer.
#[derive(Debug)]
pub struct LanguageModel {
    model: Model,
    tokenizer: Tokenizer,
}

impl LanguageModel {
    /// Loads a model folder, or the Hugging Face Hub cache's folder of a repository.
    ///
    /// # Errors
    /// Whatever is missing, malformed or does not fit is named; see [`Error`].
    pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Self::load_with_progress(path, options, |_, _| {})
    }

    /// As [`load`](Self::load); `progress` is told the weights' bytes read so far and in all.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn load_with_progress(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        Self::load_cancellable(path, options, &CancelHandle::default(), progress)
    }

    /// As [`load_with_progress`](Self::load_with_progress); `cancel` ends it before the next
    /// tensor.
    ///
    /// # Errors
    /// As [`load`](Self::load), and [`Error::Cancelled`].
    pub fn load_cancellable(
        path: impl AsRef<Path>,
        options: &LoadOptions,
        cancel: &CancelHandle,
        mut progress: impl FnMut(u64, u64),
    ) -> Result<Self> {
        let folder = model_folder(path)?;
        let config = Config::load(&folder)?;
        let checkpoint = Checkpoint::open(&folder)?;
        checkpoint.check(&config)?;
        let dtype = compute_dtype(options.dtype, checkpoint.dtype(), &config)?;
        let keep_quantized = options.keeps_quantized(&config, dtype)?;

        // The tokenizer takes a while to build and needs no MLX: it is read beside the weights.
        let (tokenizer, weights) = thread::scope(|scope| {
            let tokenizer = scope.spawn(|| {
                let tokenizer = Tokenizer::find(&folder, options.tokenizer.as_deref())?;
                tokenizer.check_vocab(config.vocab_size())?;
                Ok(tokenizer)
            });
            let options = ReadOptions {
                dtype,
                keep_quantized,
            };
            let weights =
                Weights::read_cancellable(&checkpoint, &config, options, cancel, &mut progress);
            let tokenizer = tokenizer.join().unwrap_or_else(|_| {
                Err(Error::tokenizer(
                    &folder,
                    "reading the tokenizer failed unexpectedly",
                ))
            });
            (tokenizer, weights)
        });
        Ok(Self {
            tokenizer: tokenizer?,
            model: Model::new(config, weights?, dtype)?,
        })
    }

    /// Puts a network and its tokenizer together.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the tokenizer knows more tokens than the network.
    pub fn new(model: Model, tokenizer: Tokenizer) -> Result<Self> {
        tokenizer.check_vocab(model.config().vocab_size())?;
        Ok(Self { model, tokenizer })
    }

    /// Continues `prompt`. BOS is put before it, EOS never after it.
    ///
    /// # Errors
    /// [`Error::Option`] if the prompt is empty or an option lies outside its range,
    /// [`Error::PromptTooLong`] if the prompt does not fit the context.
    pub fn generate(&self, prompt: &str, options: GenerateOptions) -> Result<Generation<'_>> {
        if prompt.is_empty() {
            return Err(Error::empty_prompt());
        }
        let tokens = self.tokenizer.encode_prompt(prompt)?;
        Generation::new(&self.model, Some(&self.tokenizer), tokens, options)
    }

    /// The network alone, without the tokenizer.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The network, for its adapters.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

/// True if the free memory holds all weights in `dtype`, and something to work with.
fn fits(config: &Config, dtype: Dtype) -> bool {
    let needed = config.weights_bytes(dtype.size() as u64);
    memory::available_bytes().is_none_or(|left| needed < left / 8 * 7)
}
