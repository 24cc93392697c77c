//! The search for a model's tokenizer.

use std::path::Path;

use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Tokenizer files that are copied with a model, if they exist.
pub(crate) const TOKENIZER_FILES: [&str; 7] = [
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
    /// Finds and reads the tokenizer of the model in `folder`: `explicit` (a file, or its folder)
    /// if given, else `tokenizer.json` or `tokenizer.model` in `folder`.
    ///
    /// # Errors
    ///
    /// [`Error::MissingFile`], which names a source, if there is none; else as
    /// [`from_file`](Self::from_file).
    pub fn find(folder: &Path, explicit: Option<&Path>) -> Result<Self> {
        let place = explicit.unwrap_or(folder);
        if explicit.is_some() && !place.is_dir() && place.exists() {
            return Self::read(place, Some(folder));
        }
        let candidates = FILE_NAMES.map(|name| place.join(name));
        match candidates.iter().find(|path| path.is_file()) {
            Some(path) => Self::read(path, Some(folder)),
            None => Err(missing(place)),
        }
    }
}

fn missing(place: &Path) -> Error {
    let problem = "no tokenizer.json or tokenizer.model here; OpenELM's repositories contain no \
                   tokenizer: it is LLaMA's (version 1 or 2, 32,000 pieces), from the Hugging \
                   Face repository meta-llama/Llama-2-7b-hf or a copy of it; give its path, or \
                   copy it into the model's folder";
    Error::missing_file(place, problem)
}

#[cfg(test)]
mod tests {
    use super::*;
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
        for (explicit, place) in [(None, &*folder), (Some(absent.as_path()), absent.as_path())] {
            let error = Tokenizer::find(&folder, explicit).unwrap_err();
            assert!(matches!(&error, Error::MissingFile { path, .. } if path == place));
            let message = error.to_string();
            for part in [
                "tokenizer.json",
                "meta-llama/Llama-2-7b-hf",
                "give its path",
            ] {
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
