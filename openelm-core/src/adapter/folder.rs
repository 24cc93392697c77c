//! An adapter folder in mlx-lm's or PEFT's format.

use std::path::Path;

use super::{adapter::Adapter, mlx_lm, peft};
use crate::{
    config::Config,
    error::{Error, Result},
};

impl Adapter {
    /// Reads an adapter folder: mlx-lm's (`adapters.safetensors`, `adapter_config.json`), or PEFT's
    /// (`adapter_model.safetensors` or, before, `adapter_model.bin`; `adapter_config.json`).
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder has neither, [`Error::Io`], [`Error::Adapter`] for a
    /// setting that is missing or not supported, [`Error::Checkpoint`] for a malformed file.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        let has = |name| folder.join(name).is_file();
        if has(peft::WEIGHTS) || (has(peft::TORCH_WEIGHTS) && !has(mlx_lm::WEIGHTS)) {
            return peft::load(folder);
        }
        if !folder.join(mlx_lm::WEIGHTS).is_file() {
            return Err(Error::missing_file(
                folder,
                format!(
                    "no adapter here: neither {} (mlx-lm) nor {} (PEFT)",
                    mlx_lm::WEIGHTS,
                    peft::WEIGHTS
                ),
            ));
        }
        mlx_lm::load(folder)
    }

    /// Writes the adapter in mlx-lm's format into `folder`, which is created if needed. Each file
    /// is written atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, config: &Config) -> Result<()> {
        mlx_lm::save(self, folder.as_ref(), config)
    }

    /// Checks that [`save`](Self::save) can write the adapter, before it is trained.
    ///
    /// # Errors
    /// [`Error::Option`] for `adapter` if it has several ranks, as PEFT's `rank_pattern` gives, or
    /// scales with no common one.
    pub(crate) fn check_savable(&self) -> Result<()> {
        mlx_lm::check_savable(self).map_err(|problem| Error::option("adapter", problem))
    }

    /// Writes the adapter in Hugging Face PEFT's format. `base` is the model's name for
    /// `base_model_name_or_path`.
    ///
    /// # Errors
    /// [`Error::Adapter`] if PEFT does not support the adapter (full fine-tuning, a tied head),
    /// [`Error::Io`] if a file cannot be written.
    pub fn save_peft(&self, folder: impl AsRef<Path>, base: &str) -> Result<()> {
        peft::save(self, folder.as_ref(), base)
    }
}
