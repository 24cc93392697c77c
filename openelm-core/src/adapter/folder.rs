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
const WEIGHTS: [&str; 3] = [peft::WEIGHTS, mlx_lm::WEIGHTS, peft::TORCH_WEIGHTS];

impl Adapter {
    /// Reads an adapter folder: mlx-lm's (`adapters.safetensors`, `adapter_config.json`), or PEFT's
    /// (`adapter_model.safetensors` or, before, `adapter_model.bin`; `adapter_config.json`); or such
    /// a repository's folder in the Hugging Face Hub cache.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder has neither, [`Error::Io`], [`Error::Adapter`] for a
    /// file and for a setting that is missing or not supported, [`Error::Checkpoint`] for a
    /// malformed file.
    pub fn load(folder: impl AsRef<Path>) -> Result<Self> {
        let path = folder.as_ref();
        let [peft, mlx_lm, _] = WEIGHTS;
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
            Some(file) if file.ends_with(mlx_lm) => mlx_lm::load(&folder),
            Some(_) => peft::load(&folder),
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
