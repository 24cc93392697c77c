//! A loaded model folder: network and tokenizer.

use std::{
    cmp::Ordering,
    path::{Path, PathBuf},
    thread,
};

use super::{
    compute_dtype::{compute_dtype, training_dtype},
    generation::Generation,
    memory_estimate::MemoryEstimate,
    options::GenerateOptions,
    prefix_cache::PrefixCache,
    prompt_cache::PromptCache,
    speculation::DraftModel,
};
use crate::{
    cancel::CancelHandle,
    config::Config,
    error::{Error, Result},
    gate::pause_point,
    mlx::{Device, Dtype, memory, primitives::CpuPrimitives, recovery::recovering},
    model::Model,
    tokenizer::Tokenizer,
    weights::{Checkpoint, ReadOptions, Weights, model_folder},
};

/// Options of [`LanguageModel::load`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LoadOptions {
    /// Dtype of the computation. `None`, the default: float32 on a CPU device; on a GPU float16 for
    /// weights stored so, and bfloat16 for others and for the 3B model.
    pub dtype: Option<Dtype>,
    /// Path of the tokenizer file, or of its folder. `None`, the default: the model folder.
    pub tokenizer: Option<PathBuf>,
    /// Keep quantised matrices quantised, and on a CPU with products of its own (Linux on x86-64
    /// with AVX2) 16-bit matrices in 16 bits. `None`, the default: yes on a GPU and on such a CPU,
    /// but not to train the model; on another CPU, where MLX's quantised products are many times
    /// slower than dense ones, only if the memory for dense matrices is not available.
    pub keep_quantized: Option<bool>,
    /// Load the model to train it: the default dtype is then bfloat16 in place of float16, whose
    /// range is too small for gradients. Default false.
    pub training: bool,
}

impl LoadOptions {
    /// Dtype of the computation with weights stored as `stored`.
    fn compute_dtype(&self, stored: Dtype, config: &Config) -> Result<Dtype> {
        if self.training {
            training_dtype(self.dtype, stored, config)
        } else {
            compute_dtype(self.dtype, stored, config)
        }
    }

    /// How the weights, stored as `stored`, are read.
    ///
    /// # Errors
    /// As [`compute_dtype`].
    pub fn read_options(&self, stored: Dtype, config: &Config) -> Result<ReadOptions> {
        let dtype = self.compute_dtype(stored, config)?;
        Ok(ReadOptions {
            dtype,
            keep_quantized: self.keeps_quantized(config, dtype)?,
        })
    }

    /// True if quantised matrices stay quantised.
    fn keeps_quantized(&self, config: &Config, dtype: Dtype) -> Result<bool> {
        Ok(match self.keep_quantized {
            Some(keep) => keep,
            None => {
                let device = Device::current()?;
                let has_products = CpuPrimitives::of(device).is_some() && dtype == Dtype::Float32;
                device == Device::Gpu || (has_products && !self.training) || !fits(config, dtype)
            }
        })
    }
}

/// Tokens of a chunk in [`LanguageModel::warm_up`]: enough for the kernels of many rows.
const WARM_UP_CHUNK: usize = 16;

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
    /// The error names the file, key or tensor that is missing, malformed or unsuitable; see
    /// [`Error`]. [`Error::Memory`] if the model does not fit into the memory that the system has
    /// left; nothing is read then.
    pub fn load(path: impl AsRef<Path>, options: &LoadOptions) -> Result<Self> {
        Self::load_with_progress(path, options, |_, _| {})
    }

    /// Like [`load`](Self::load); `progress` receives the bytes read so far and the total.
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

    /// Like [`load_with_progress`](Self::load_with_progress); `cancel` ends it before the next
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
        recovering(|| Self::load_from(path.as_ref(), options, cancel, &mut progress))
    }

    fn load_from(
        path: &Path,
        options: &LoadOptions,
        cancel: &CancelHandle,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Self> {
        let folder = model_folder(path)?;
        let config = Config::load(&folder)?;
        let checkpoint = Checkpoint::open(&folder)?;
        checkpoint.check(&config)?;
        let read_options = options.read_options(checkpoint.dtype(), &config)?;
        MemoryEstimate::check_fits(&checkpoint, &config, read_options)?;

        // The tokenizer takes a while to build and does not use MLX: it is read in parallel.
        let (tokenizer, weights) = thread::scope(|scope| {
            let tokenizer = scope.spawn(|| {
                let tokenizer = Tokenizer::find(&folder, options.tokenizer.as_deref())?;
                tokenizer.with_model_vocab(config.vocab_size())
            });
            let weights =
                Weights::read_cancellable(&checkpoint, &config, read_options, cancel, progress);
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
            model: Model::new(config, weights?, read_options.dtype)?,
        })
    }

    /// Combines a network and its tokenizer.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] if the network does not have the tokenizer's BOS or EOS.
    pub fn new(model: Model, tokenizer: Tokenizer) -> Result<Self> {
        let tokenizer = tokenizer.with_model_vocab(model.config().vocab_size())?;
        Ok(Self { model, tokenizer })
    }

    /// Reads and generates a few tokens, so that MLX loads or compiles its GPU kernels now and not
    /// during the first prompt: a chunk of 16 tokens, a chunk of one token, and a greedy step. A
    /// model with a shorter context reads less.
    ///
    /// # Errors
    /// As the events of a generation.
    pub fn warm_up(&self) -> Result<()> {
        let longest = self.model.config().max_context_length().saturating_sub(2);
        let prompt = vec![self.tokenizer.bos_id(); longest.clamp(1, WARM_UP_CHUNK + 1)];
        let options = GenerateOptions {
            max_tokens: 2,
            prefill_chunk: Some(WARM_UP_CHUNK),
            ignore_eos: true,
            ..GenerateOptions::default()
        };
        let mut generation = Generation::new(&self.model, None, prompt, options)?;
        let cancel = generation.cancel_handle();
        while let Some(event) = generation.next() {
            event?;
            pause_point(&cancel, || generation.settle())?;
        }
        Ok(())
    }

    /// Continues `prompt`. BOS is prepended, EOS is not appended.
    ///
    /// # Errors
    /// [`Error::Option`] if the prompt is empty or an option is out of range,
    /// [`Error::PromptTooLong`] if the prompt does not fit the context.
    pub fn generate(&self, prompt: &str, options: GenerateOptions) -> Result<Generation<'_>> {
        self.generate_with_prefixes(prompt, options, &mut PrefixCache::new(0))
    }

    /// Like [`generate`](Self::generate), with the keys and values of the longest prefix of the
    /// prompt in `prefixes`.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_with_prefixes(
        &self,
        prompt: &str,
        options: GenerateOptions,
        prefixes: &mut PrefixCache,
    ) -> Result<Generation<'_>> {
        if prompt.is_empty() {
            return Err(Error::empty_prompt());
        }
        let tokens = self.tokenizer.encode_prompt(prompt)?;
        self.generate_tokens_with_prefixes(tokens, options, prefixes)
    }

    /// Like [`generate_with_prefixes`](Self::generate_with_prefixes) for the token ids of a prompt,
    /// to which BOS is not added.
    ///
    /// # Errors
    /// As [`generate`](Self::generate), and [`Error::Option`] for an id that the model does not have.
    pub fn generate_tokens_with_prefixes(
        &self,
        tokens: Vec<u32>,
        options: GenerateOptions,
        prefixes: &mut PrefixCache,
    ) -> Result<Generation<'_>> {
        let cache = prefixes.take(&self.model, &tokens, &options.kv_cache);
        Generation::with_cache(&self.model, Some(&self.tokenizer), tokens, options, cache)
    }

    /// Like [`generate`](Self::generate), with drafts of `draft`: the same text in less time.
    ///
    /// # Errors
    /// As [`generate`](Self::generate) and [`Generation::with_draft`].
    pub fn generate_with_draft(
        &self,
        prompt: &str,
        options: GenerateOptions,
        draft: &DraftModel,
    ) -> Result<Generation<'_>> {
        self.generate(prompt, options)?.with_draft(draft)
    }

    /// Continues the tokens of `cache` with `text`, whose first word begins a new word.
    ///
    /// # Errors
    /// As [`Generation::continuing`].
    pub fn generate_after(
        &self,
        cache: PromptCache,
        text: &str,
        options: GenerateOptions,
    ) -> Result<Generation<'_>> {
        let tokens = self.tokenizer.encode(text)?;
        Generation::continuing(&self.model, Some(&self.tokenizer), &tokens, options, cache)
    }

    /// Doubts about the model that are not errors, a sentence each: a tokenizer whose size is not
    /// the network's.
    pub fn warnings(&self) -> Vec<String> {
        let (ids, rows) = (
            self.tokenizer.vocab_size(),
            self.model.config().vocab_size(),
        );
        let consequence = match ids.cmp(&rows) {
            Ordering::Equal => return Vec::new(),
            Ordering::Less => "ids without a token are not generated",
            Ordering::Greater => "a text with a token that the model lacks is refused",
        };
        let path = self.tokenizer.path().display();
        vec![format!(
            "{path}: the tokenizer has {ids} ids, the model's vocabulary {rows}; {consequence}"
        )]
    }

    /// The network without the tokenizer.
    pub fn model(&self) -> &Model {
        &self.model
    }

    /// The network, for changes of its adapters.
    pub fn model_mut(&mut self) -> &mut Model {
        &mut self.model
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }
}

/// True if the free memory holds all weights in `dtype` and the buffers of the computation.
fn fits(config: &Config, dtype: Dtype) -> bool {
    let needed = config.weights_bytes(dtype.size() as u64);
    memory::available_bytes().is_none_or(|left| needed < left / 8 * 7)
}
