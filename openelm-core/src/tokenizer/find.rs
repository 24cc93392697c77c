//! The search for a model's tokenizer.

use std::path::{Path, PathBuf};

use super::tokenizer::Tokenizer;
use crate::{
    error::{Error, Remedy, Result},
    hub_cache,
    lookup::{PathKind, first_file, path_kind},
};

/// Tokenizer files that are copied with a model, if they exist.
pub const TOKENIZER_FILES: [&str; 7] = [
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
];

/// Names of tokenizer files in a folder, in order of preference.
pub(super) const FILE_NAMES: [&str; 2] = ["tokenizer.json", "tokenizer.model"];

impl Tokenizer {
    /// Finds and reads the tokenizer of the model in `folder`: `explicit` (a file, its folder, or
    /// its repository's folder in the Hugging Face Hub cache) if given, else `tokenizer.json` or
    /// `tokenizer.model` in `folder`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFile`], which names a source, if there is none; else as
    /// [`from_file`](Self::from_file).
    pub fn find(folder: &Path, explicit: Option<&Path>) -> Result<Self> {
        let place = Self::locate(explicit.unwrap_or(folder))?;
        match path_kind(&place)? {
            Some(PathKind::Folder) => match first_file(&place, &FILE_NAMES)? {
                Some(file) => Self::read(&file, Some(folder)),
                None => Err(missing(&place)),
            },
            _ => Self::read(&place, Some(folder)),
        }
    }

    /// The folder of the tokenizer at `path`, or `path` itself for a file: `path` or, for a
    /// repository's folder in the Hugging Face Hub cache, its snapshot.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFile`] if `path` does not exist, [`Error::Io`] if it cannot be read.
    pub fn locate(path: &Path) -> Result<PathBuf> {
        match path_kind(path)? {
            Some(_) => hub_cache::resolve(path, &FILE_NAMES),
            None => Err(hub_cache::absent(
                path,
                "a tokenizer.json or tokenizer.model, or a folder with one",
            )),
        }
    }
}

fn missing(folder: &Path) -> Error {
    let problem = "no tokenizer.json or tokenizer.model here; OpenELM's repositories contain no \
                   tokenizer: it is LLaMA's (version 1 or 2, 32,000 pieces), from the Hugging \
                   Face repository meta-llama/Llama-2-7b-hf or a copy of it";
    Error::missing_file(folder, problem).with_remedy(Remedy::Tokenizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::tokenizer::json::tests::tiny_json;
    use crate::tokenizer::sentencepiece::model::tests::tiny_model;
    use openelm_testing::TempDir;

    #[test]
    fn explicit_path_then_json_then_model() {
        let (model, other) = (TempDir::new(), TempDir::new());
        let found =
            |explicit: Option<&Path>| Tokenizer::find(&model, explicit).unwrap().path().to_owned();
        let odd_name = other.write("vocabulary.bin", tiny_model());
        assert_eq!(found(Some(&odd_name)), odd_name);
        let sentencepiece = model.write("tokenizer.model", tiny_model());
        assert_eq!(found(None), sentencepiece);
        let json = model.write("tokenizer.json", tiny_json().to_string().as_bytes());
        assert_eq!(found(None), json);
        // The format is detected by content: the name is of the other format.
        let misnamed = other.write("tokenizer.json", tiny_model());
        assert_eq!(found(Some(&other)), misnamed);
    }

    #[test]
    fn missing_tokenizer_is_explained_in_one_line() {
        let folder = TempDir::new();
        let absent = folder.join("absent.json");
        let repository = Path::new("nowhere/Llama-2-7b-hf");
        for (explicit, place, parts) in [
            (
                None,
                &*folder,
                ["meta-llama/Llama-2-7b-hf", "give its path"],
            ),
            (
                Some(absent.as_path()),
                absent.as_path(),
                ["no such file or folder", "a folder with one"],
            ),
            (
                Some(repository),
                repository,
                ["no such file or folder", "download it first"],
            ),
        ] {
            let error = Tokenizer::find(&folder, explicit).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MissingFile);
            assert_eq!(error.path(), Some(place));
            let message = error.to_string();
            for part in ["tokenizer.json"].iter().chain(&parts) {
                assert!(message.contains(part), "{message}");
            }
            assert!(!message.contains('\n'));
        }
    }

    #[test]
    fn unreadable_file_is_an_io_error() {
        let folder = TempDir::new();
        for path in [folder.to_path_buf(), folder.join("absent.json")] {
            let error = Tokenizer::from_file(&path).unwrap_err();
            assert!(matches!(error, Error::Io { path: at, .. } if at == path));
        }
    }
}
