//! The target of a conversion: checks against its present contents and the source.

use std::{fs, io, path::Path};

use serde_json::Value;

use super::options::Format;
use crate::{
    error::{Error, Remedy, Result},
    files::{LOCK_FILE, parent, real, resolve},
    formats::{gguf::GgufReader, torch::TorchFile},
    text_file::{MAX_SETTINGS, read_text_file},
};

/// Keys of which the `config.json` of every model has one: of Hugging Face, of mlx-lm and of Apple's
/// MLX example.
const MODEL_KEYS: [&str; 4] = ["model_type", "architectures", "model_dim", "model_name"];

/// The kind of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Folder,
    Gguf,
    Torch,
}

impl Kind {
    pub(super) fn of(format: Format) -> Self {
        match format {
            Format::Mlx | Format::HuggingFace | Format::CoreNetMlx => Self::Folder,
            Format::Gguf(_) => Self::Gguf,
            Format::CoreNet => Self::Torch,
        }
    }

    /// The name of a file; `None` for a folder.
    fn name(self) -> Option<&'static str> {
        match self {
            Self::Folder => None,
            Self::Gguf => Some("GGUF file"),
            Self::Torch => Some("file of PyTorch weights"),
        }
    }

    /// True if the file at `place` is of this kind.
    fn recognizes(self, place: &Path) -> Result<bool> {
        match self {
            Self::Folder => Ok(false),
            Self::Gguf => GgufReader::recognizes(place),
            Self::Torch => Ok(TorchFile::open(place).is_ok()),
        }
    }
}

/// Refuses a target folder that a conversion of `source` could not write.
pub(crate) fn check_target_folder(source: &Path, target: &Path, force: bool) -> Result<()> {
    check_apart(source, target)?;
    check_target(target, &resolve(target)?, Kind::Folder, force)
}

/// Refuses a target that cannot be replaced: only a model replaces a model, and only with `force`.
pub(super) fn check_target(target: &Path, place: &Path, kind: Kind, force: bool) -> Result<()> {
    let refuse = |problem: &str| Err(Error::destination(target, problem));
    let found = match fs::symlink_metadata(place) {
        Ok(found) => found,
        // A missing path, or a file in place of a folder, which is reported next.
        Err(error) if is_missing(&error) => return Ok(()),
        Err(error) => return Err(Error::io(target)(error)),
    };
    if let Some(name) = kind.name() {
        if found.is_dir() {
            return refuse(&format!("a folder, expected a {name} or a new path"));
        }
        if !found.is_file() || found.len() > 0 && !kind.recognizes(place)? {
            return refuse(&format!("a file that is no {name}: choose another path"));
        }
    } else {
        if !found.is_dir() {
            return refuse("a file, expected a folder or a new path");
        }
        if !is_model(place)
            && let Some(name) = other_file(place)?
        {
            let problem = "a folder that contains other files than a model";
            return refuse(&format!("{problem} (`{name}`): choose another folder"));
        }
        if is_mounted(&found, place) {
            return refuse("a mounted file system: choose a folder in it");
        }
    }
    if !force {
        let problem = "exists, and replacing it was not requested";
        return Err(Error::destination(target, problem).with_remedy(Remedy::Force));
    }
    Ok(())
}

fn is_missing(error: &io::Error) -> bool {
    use io::ErrorKind::{NotADirectory, NotFound};
    matches!(error.kind(), NotADirectory | NotFound)
}

/// True if the folder is on another file system than the folder that contains it: files cannot be
/// renamed into it.
#[cfg(unix)]
fn is_mounted(found: &fs::Metadata, place: &Path) -> bool {
    use std::os::unix::fs::MetadataExt;
    fs::metadata(parent(place)).is_ok_and(|parent| parent.dev() != found.dev())
}

#[cfg(not(unix))]
fn is_mounted(_found: &fs::Metadata, _place: &Path) -> bool {
    false
}

/// Refuses a target that is the source, inside it, or contains it.
pub(super) fn check_apart(source: &Path, target: &Path) -> Result<()> {
    let source = fs::canonicalize(source).map_err(Error::io(source))?;
    let place = real(target)?;
    if place == source {
        return Err(Error::destination(
            target,
            "the source and the target are the same",
        ));
    }
    if place.starts_with(&source) || source.starts_with(&place) {
        return Err(Error::destination(
            target,
            "one of source and target is inside the other",
        ));
    }
    Ok(())
}

/// True if the folder's `config.json` is of a model.
fn is_model(folder: &Path) -> bool {
    let text = read_text_file(&folder.join("config.json"), MAX_SETTINGS);
    let config: Option<Value> = text.ok().and_then(|text| serde_json::from_str(&text).ok());
    config.is_some_and(|config| MODEL_KEYS.iter().any(|key| config.get(key).is_some()))
}

/// The first name in the folder, apart from the lock of a killed run.
fn other_file(folder: &Path) -> Result<Option<String>> {
    let entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    let names = entries.filter_map(|entry| Some(entry.ok()?.file_name()));
    let names = names.filter(|name| name != LOCK_FILE);
    Ok(names.min().map(|name| name.to_string_lossy().into_owned()))
}

#[cfg(test)]
mod tests {
    use openelm_testing::TempDir;

    use super::*;

    #[test]
    fn only_a_model_is_replaced() {
        for (config, expected) in [
            (r#"{"model_type": "openelm"}"#, true),
            ("\u{feff}{\"architectures\": []}", true),
            (r#"{"model_name": "OpenELM-270M"}"#, true),
            ("mine", false),
            ("{}", false),
            (r#"{"port": 8080, "models": ["model_type"]}"#, false),
            (r#"["model_type"]"#, false),
        ] {
            let folder = TempDir::new();
            folder.write("config.json", config);
            let checked = check_target(&folder, &folder, Kind::Folder, true);
            assert_eq!(checked.is_ok(), expected, "{config}: {checked:?}");
        }
    }
}
