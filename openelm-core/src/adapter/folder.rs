//! An adapter folder in mlx-lm's or PEFT's format.

use std::path::Path;

use super::{adapter::Adapter, mlx_lm, peft};
use crate::{
    config::Config,
    error::{Error, Result},
    hub_cache,
    lookup::{PathKind, first_file, path_kind},
};

/// Weight files of an adapter folder, in order of preference.
const WEIGHTS: [&str; 2] = [peft::WEIGHTS, mlx_lm::WEIGHTS];

impl Adapter {
    /// Reads an adapter folder: mlx-lm's (`adapters.safetensors`, `adapter_config.json`), or PEFT's
    /// (`adapter_model.safetensors`, `adapter_config.json`); or such a repository's folder in the
    /// Hugging Face Hub cache.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder has neither, [`Error::Io`], [`Error::Adapter`] for a
    /// file and for a setting that is missing or not supported, [`Error::Checkpoint`] for a
    /// malformed file.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref();
        let [peft, mlx_lm] = WEIGHTS;
        let expected = format!("an adapter folder with {mlx_lm} (mlx-lm) or {peft} (PEFT)");
        match path_kind(path)? {
            None => return Err(hub_cache::absent(path, &expected)),
            Some(PathKind::Folder) => {}
            Some(_) => {
                let problem = format!("this is a file; expected {expected}");
                return Err(Error::adapter(path, problem));
            }
        }
        let folder = hub_cache::resolve(path, &WEIGHTS)?;
        match first_file(&folder, &WEIGHTS)? {
            Some(file) if file.ends_with(peft) => peft::load(&folder),
            Some(_) => mlx_lm::load(&folder),
            None => Err(Error::missing_file(
                path,
                format!("no adapter here: neither {mlx_lm} (mlx-lm) nor {peft} (PEFT)"),
            )),
        }
    }

    /// Writes the adapter in mlx-lm's format into `folder`, which is created if needed. Each file
    /// is written atomically.
    ///
    /// # Errors
    /// [`Error::Io`] if a file cannot be written.
    pub fn save(&self, folder: impl AsRef<Path>, config: &Config) -> Result<()> {
        mlx_lm::save(self, folder.as_ref(), config)
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
