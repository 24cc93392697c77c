//! Options that select a model, and loading it with a progress bar.

use std::path::{Path, PathBuf};

use openelm_core::{
    Config, ErrorKind, LanguageModel, LoadOptions, Tokenizer,
    engine::{Engine, LoadEvent, ModelHandle},
    weights::model_folder,
};

use crate::{
    bar::bar,
    choices::Dtype,
    error::Error,
    hub::{self, Files},
    output::note,
};

/// The model and its load options.
#[derive(clap::Args)]
pub(crate) struct ModelArgs {
    /// Model: a folder with config.json and model.safetensors, or a repository of the Hugging Face
    /// Hub (owner/name or owner/name@revision), which is downloaded into its cache
    #[arg(long, short, value_name = "PATH|REPO")]
    pub(crate) model: PathBuf,

    /// Tokenizer: a tokenizer.json, LLaMA's tokenizer.model, a folder or repository with one, or
    /// auto, a copy on the Hub if the model has none [default: the model's]
    #[arg(long, value_name = "PATH|REPO")]
    pub(crate) tokenizer: Option<PathBuf>,

    /// Data type of the computation [default: float32 on a CPU, 16 bits on a GPU]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    pub(crate) dtype: Option<Dtype>,

    /// Keep a quantised model's matrices packed: less memory [default: packed on a GPU and on Linux
    /// with AVX2, but not to train; on another CPU dequantised if memory allows]
    #[arg(long)]
    pub(crate) keep_quantized: bool,
}

impl ModelArgs {
    /// Downloads the model and the tokenizer if they are names of repositories. Their paths are
    /// those in the cache then.
    pub(crate) fn fetch(&mut self, quiet: bool) -> Result<(), Error> {
        self.model = hub::local(&self.model, &Files::Model, quiet)?;
        if let Some(given) = self.tokenizer.take() {
            self.tokenizer = hub::tokenizer(&given, &self.model, quiet)?;
        }
        Ok(())
    }

    /// The absolute path of the model folder; the path as it is given if there is no folder.
    pub(crate) fn place(&self) -> String {
        absolute(&model_folder(&self.model).unwrap_or_else(|_| self.model.clone()))
    }

    /// The absolute path of the tokenizer, if one is given.
    pub(crate) fn tokenizer_place(&self) -> Option<String> {
        self.tokenizer.as_deref().map(absolute)
    }

    /// Loads the model, with a progress bar on a terminal unless `quiet`.
    pub(crate) fn load(&self, quiet: bool) -> Result<LanguageModel, Error> {
        self.load_for(false, quiet)
    }

    /// Like [`load`](Self::load), to train the model.
    pub(crate) fn load_for_training(&self, quiet: bool) -> Result<LanguageModel, Error> {
        self.load_for(true, quiet)
    }

    /// Loads another model in `folder`, for drafts or a comparison. It has this model's tokenizer if
    /// `folder` has none.
    pub(crate) fn load_other(&self, folder: &Path, quiet: bool) -> Result<LanguageModel, Error> {
        let tokenizer = match Tokenizer::find(&model_folder(folder)?, None) {
            Err(error) if error.kind() == ErrorKind::MissingFile => {
                Some(self.tokenizer.clone().unwrap_or_else(|| self.model.clone()))
            }
            _ => None,
        };
        let options = LoadOptions {
            dtype: self.dtype.map(Into::into),
            tokenizer,
            ..LoadOptions::default()
        };
        load(folder, &options, quiet)
    }

    /// Loads the model on the thread of `engine`.
    pub(crate) fn load_on(&self, engine: &Engine, quiet: bool) -> Result<ModelHandle, Error> {
        let load = engine.load(&self.model, self.options(false)?)?;
        let bar = bar(quiet, LOADING);
        while let Some(event) = load.events().next_blocking()? {
            match event {
                LoadEvent::Progress { read, total } => {
                    bar.set_length(total);
                    bar.set_position(read);
                }
                LoadEvent::Loaded(model) => {
                    bar.finish_and_clear();
                    for warning in &model.info().warnings {
                        note(&format!("warning: {warning}"));
                    }
                    return Ok(model);
                }
            }
        }
        Err(openelm_core::Error::Cancelled.into())
    }

    fn load_for(&self, training: bool, quiet: bool) -> Result<LanguageModel, Error> {
        load(&self.model, &self.options(training)?, quiet)
    }

    fn options(&self, training: bool) -> Result<LoadOptions, Error> {
        if self.keep_quantized {
            let config = Config::load(model_folder(&self.model)?)?;
            // The error of a malformed block comes with its file, from the load.
            if matches!(config.quantization_map(), Ok(None)) {
                let problem = "--keep-quantized: no effect on a model that is not quantised";
                return Err(Error::Usage(problem.into()));
            }
        }
        Ok(LoadOptions {
            dtype: self.dtype.map(Into::into),
            tokenizer: self.tokenizer.clone(),
            keep_quantized: self.keep_quantized.then_some(true),
            training,
        })
    }
}

/// The progress of a load.
const LOADING: &str = "loading {wide_bar} {decimal_bytes}/{decimal_total_bytes}";

/// The absolute path without links; the path as it is given if there is nothing.
pub(crate) fn absolute(path: &Path) -> String {
    let found = path.canonicalize();
    found.as_deref().unwrap_or(path).display().to_string()
}

fn load(folder: &Path, options: &LoadOptions, quiet: bool) -> Result<LanguageModel, Error> {
    let bar = bar(quiet, LOADING);
    let loaded = LanguageModel::load_with_progress(folder, options, |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    });
    bar.finish_and_clear();
    let model = loaded?;
    for warning in model.warnings() {
        note(&format!("warning: {warning}"));
    }
    Ok(model)
}
