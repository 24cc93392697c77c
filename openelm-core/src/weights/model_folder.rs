//! A model folder, plain or in the Hugging Face Hub cache.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::{
    error::{Error, Result},
    text_file::{self, MAX_SETTINGS},
};

/// The model folder of `path`: the path itself or, for a repository's folder in the Hugging Face
/// Hub cache (`models--apple--OpenELM-270M`), the snapshot that its `main` names.
///
/// # Errors
/// [`Error::MissingFile`] if there is no `config.json`, [`Error::Io`] if `path` cannot be read.
pub fn model_folder(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    fs::metadata(path).map_err(Error::io(path))?;
    if path.join("config.json").is_file() {
        return Ok(path.to_path_buf());
    }
    let snapshots = path.join("snapshots");
    if snapshots.is_dir() {
        let main = path.join("refs").join("main");
        let wrong = |problem| Error::missing_file(&main, problem);
        if let Ok(commit) = text_file::read(&main, MAX_SETTINGS, wrong) {
            let folder = snapshots.join(commit.trim());
            if folder.join("config.json").is_file() {
                return Ok(folder);
            }
        }
        let entries = fs::read_dir(&snapshots).map_err(Error::io(&snapshots))?;
        let mut complete: Vec<PathBuf> = entries
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|folder| folder.join("config.json").is_file())
            .collect();
        match (complete.pop(), complete.is_empty()) {
            (Some(only), true) => return Ok(only),
            (Some(_), false) => {
                return Err(Error::missing_file(
                    main,
                    "the cache holds several snapshots and no refs/main; \
                              give the path of one of its snapshots/ folders",
                ));
            }
            (None, _) => {}
        }
    }
    Err(Error::missing_file(
        path.join("config.json"),
        "not found; expected a model folder with config.json and model.safetensors",
    ))
}
