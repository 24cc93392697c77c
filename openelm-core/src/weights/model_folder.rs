//! A model folder, plain or in the Hugging Face Hub cache.

use std::path::{Path, PathBuf};

use crate::{
    error::{Error, Remedy, Result},
    hub_cache,
    lookup::{PathKind, first_file, path_kind},
};

const CONFIG: &str = "config.json";
const EXPECTED: &str = "a model folder with config.json and model.safetensors";

/// The model folder of `path`: the path itself or, for a repository's folder in the Hugging Face
/// Hub cache (`models--apple--OpenELM-270M`), the snapshot that its `main` names.
///
/// # Errors
/// [`Error::MissingFile`] if `path` does not exist or has no `config.json`, [`Error::Checkpoint`] if
/// it is a file, [`Error::Io`] if it cannot be read.
pub fn model_folder(path: impl AsRef<Path>) -> Result<PathBuf> {
    let path = path.as_ref();
    match path_kind(path)? {
        None if is_convertible(path) => {
            let problem = format!("no such file or folder; expected {EXPECTED}");
            return Err(Error::missing_file(path, problem).with_remedy(Remedy::Convert));
        }
        None => return Err(hub_cache::absent(path, EXPECTED)),
        Some(PathKind::Folder) => {}
        Some(_) => {
            let error = Error::checkpoint(path, format!("this is a file; expected {EXPECTED}"));
            return Err(if is_convertible(path) {
                error.with_remedy(Remedy::Convert)
            } else {
                error
            });
        }
    }
    let folder = hub_cache::resolve(path, &[CONFIG])?;
    if first_file(&folder, &[CONFIG])?.is_some() {
        return Ok(folder);
    }
    Err(Error::missing_file(
        path.join(CONFIG),
        format!("not found; expected {EXPECTED}"),
    ))
}

/// True for the name of a file that can be converted to a model folder.
fn is_convertible(path: &Path) -> bool {
    let ending = path.extension().unwrap_or_default();
    let mut known = ["gguf", "pt", "pth", "bin"].iter();
    known.any(|known| ending.eq_ignore_ascii_case(known))
}
