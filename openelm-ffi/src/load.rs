//! Loading a model, with progress.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use openelm_core::{
    self as core, Dtype,
    engine::{LoadEvent, LoadHandle},
};

use crate::{
    engine::engine,
    error::{Error, Result},
    language_model::LanguageModel,
};

/// Mirrors `openelm_core::LoadOptions`; `dtype` is `float32`, `float16` or `bfloat16`.
#[derive(Debug, Clone, Default, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::LoadOptions")]
pub struct LoadOptions {
    pub dtype: Option<String>,
    pub tokenizer: Option<String>,
    pub keep_quantized: Option<bool>,
    pub training: bool,
}

/// The core's defaults.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn default_load_options() -> Result<LoadOptions> {
    let options = core::LoadOptions::default();
    Ok(LoadOptions {
        dtype: options.dtype.map(|dtype| dtype.to_string()),
        tokenizer: options
            .tokenizer
            .map(|path| path.to_string_lossy().into_owned()),
        keep_quantized: options.keep_quantized,
        training: options.training,
    })
}

/// Bytes of the weights: read so far, and in total.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "documented by the record")]
pub struct LoadProgress {
    pub read: u64,
    pub total: u64,
}

/// A model being loaded. Dropping it cancels the load.
#[derive(Debug, uniffi::Object)]
pub struct LoadRun {
    load: LoadHandle,
    model: Mutex<Option<Arc<LanguageModel>>>,
}

/// Starts loading the model folder `path`.
///
/// # Errors
/// [`Error::InvalidOption`] for an unknown dtype.
#[uniffi::export]
pub fn load_model(path: String, options: LoadOptions) -> Result<Arc<LoadRun>> {
    let options = core::LoadOptions::try_from(options)?;
    Ok(Arc::new(LoadRun {
        load: engine()?.load(path, options)?,
        model: Mutex::new(None),
    }))
}

#[uniffi::export]
impl LoadRun {
    /// The latest progress; unread older progress is dropped. `None` once the model is loaded.
    ///
    /// # Errors
    /// Errors of the model's files; [`Error::Cancelled`].
    pub async fn next(&self) -> Result<Option<LoadProgress>> {
        match self.load.events().next().await? {
            Some(LoadEvent::Progress { read, total }) => Ok(Some(LoadProgress { read, total })),
            Some(LoadEvent::Loaded(model)) => {
                let model = Arc::new(LanguageModel::new(model));
                *self.model.lock().unwrap_or_else(PoisonError::into_inner) = Some(model);
                Ok(None)
            }
            None => Ok(None),
        }
    }

    /// The model, once, after `next` returned `None`.
    ///
    /// # Errors
    /// [`Error::Cancelled`] if no model was loaded.
    pub fn model(&self) -> Result<Arc<LanguageModel>> {
        let mut model = self.model.lock().unwrap_or_else(PoisonError::into_inner);
        model.take().ok_or_else(|| core::Error::Cancelled.into())
    }

    /// Cancels the load before its next tensor.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn cancel(&self) -> Result<()> {
        self.load.cancel();
        Ok(())
    }
}

impl TryFrom<LoadOptions> for core::LoadOptions {
    type Error = Error;

    fn try_from(options: LoadOptions) -> Result<Self> {
        let dtype = options.dtype.map(|name| name.parse::<Dtype>());
        Ok(Self {
            dtype: dtype.transpose()?,
            tokenizer: options.tokenizer.map(PathBuf::from),
            keep_quantized: options.keep_quantized,
            training: options.training,
        })
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests may panic")]
mod tests {
    use super::*;

    #[test]
    fn options_reach_the_core() {
        let options = LoadOptions {
            dtype: Some("bfloat16".into()),
            tokenizer: Some("folder".into()),
            keep_quantized: Some(true),
            training: true,
        };
        let expected = core::LoadOptions {
            dtype: Some(Dtype::Bfloat16),
            tokenizer: Some("folder".into()),
            keep_quantized: Some(true),
            training: true,
        };
        assert_eq!(core::LoadOptions::try_from(options).unwrap(), expected);
        let default = default_load_options().unwrap();
        assert_eq!(
            core::LoadOptions::try_from(default).unwrap(),
            core::LoadOptions::default()
        );
    }
}
