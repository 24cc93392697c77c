//! The tokenizer of a converted model, and other files of a model folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use serde_json::json;

use super::options::{ConvertOptions, Format, TokenizerChoice};
use crate::{
    config::Config,
    convert::{gguf::Vocabulary, source::SourceModel},
    error::{Error, ErrorKind, Remedy, Result},
    files::{copy_synced, write_synced},
    lookup::folder_of,
    tokenizer::{TOKENIZER_FILES, Tokenizer, is_json},
};

/// Files that are copied from a model's folder, if they exist.
const MODEL_FILES: [&str; 6] = [
    "generation_config.json",
    "LICENSE",
    "LICENSE.txt",
    "LICENSE.md",
    "configuration_openelm.py",
    "modeling_openelm.py",
];

/// The source of a model's tokenizer, checked against the model.
pub(super) enum TokenizerFiles {
    /// No tokenizer.
    None,
    /// A tokenizer, and its folder or file.
    Found(Box<Tokenizer>, PathBuf),
    /// The tokenizer inside the source file, as the text of a tokenizer.json.
    Inside(Box<Vocabulary>, String),
}

/// The tokenizer that `choice` selects for `source`.
///
/// # Errors
/// [`Error::Option`] if it selects none; the errors of its files.
pub(crate) fn source_tokenizer(
    source: &SourceModel,
    choice: &TokenizerChoice,
) -> Result<Tokenizer> {
    let options = ConvertOptions {
        tokenizer: choice.clone(),
        ..ConvertOptions::default()
    };
    match TokenizerFiles::find(source, &options)? {
        TokenizerFiles::Found(tokenizer, _) => Ok(*tokenizer),
        TokenizerFiles::Inside(_, json) => {
            let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), json.as_bytes())?;
            tokenizer.with_model_vocab(source.config.vocab_size())
        }
        TokenizerFiles::None => Err(Error::option("tokenizer", "expected one, found none")),
    }
}

impl TokenizerFiles {
    pub(super) fn find(source: &SourceModel, options: &ConvertOptions) -> Result<Self> {
        let place = match &options.tokenizer {
            TokenizerChoice::Without => return Ok(Self::None),
            TokenizerChoice::Path(path) => path.clone(),
            TokenizerChoice::OfSource => {
                if let Some(vocabulary) = source.vocabulary()? {
                    let json = vocabulary.to_tokenizer_json();
                    let json = json.map_err(|error| in_file(error, &source.path))?;
                    return Ok(Self::Inside(Box::new(vocabulary), json));
                }
                if source.path.is_dir() {
                    source.path.clone()
                } else {
                    folder_of(&source.path)
                }
            }
        };
        let place = Tokenizer::locate(&place)?;
        let tokenizer = Tokenizer::find(&place, Some(&place));
        let is_beside = options.tokenizer == TokenizerChoice::OfSource && source.path.is_file();
        let is_missing = |error: &Error| error.kind() == ErrorKind::MissingFile;
        if options.format == Format::CoreNet
            && options.tokenizer == TokenizerChoice::OfSource
            && tokenizer.as_ref().is_err_and(is_missing)
        {
            // A state dict has no tokenizer.
            return Ok(Self::None);
        }
        let tokenizer = tokenizer.map_err(|error| match error.kind() {
            ErrorKind::MissingFile if is_beside => {
                let problem = "no tokenizer in the file, and no tokenizer.json or \
                               tokenizer.model beside it";
                Error::missing_file(&source.path, problem).with_remedy(Remedy::Tokenizer)
            }
            _ => error,
        })?;
        tokenizer.check_vocab(source.config.vocab_size())?;
        let tokenizer = tokenizer.with_model_vocab(source.config.vocab_size())?;
        Ok(Self::Found(Box::new(tokenizer), place))
    }

    /// The vocabulary for a GGUF file.
    pub(super) fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        match self {
            Self::None => Ok(None),
            Self::Found(tokenizer, _) => Vocabulary::of(tokenizer).map(Some),
            Self::Inside(vocabulary, _) => Ok(Some(Vocabulary::clone(vocabulary))),
        }
    }

    /// At most `most` ids of an English text; `None` without a tokenizer for a model of
    /// `vocab_size` tokens.
    pub(super) fn sample(&self, most: usize, vocab_size: usize) -> Result<Option<Vec<u32>>> {
        let mut ids = match self {
            Self::None => return Ok(None),
            Self::Found(tokenizer, _) => tokenizer.encode_prompt(SAMPLE)?,
            Self::Inside(_, json) => {
                // llama.cpp accepts vocabularies that this crate does not, such as without bytes:
                // this is no reason to refuse the weights.
                let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), json.as_bytes())
                    .and_then(|tokenizer| tokenizer.with_model_vocab(vocab_size))
                    .and_then(|tokenizer| tokenizer.encode_prompt(SAMPLE));
                let Ok(ids) = tokenizer else {
                    return Ok(None);
                };
                ids
            }
        };
        ids.truncate(most);
        Ok(Some(ids))
    }

    /// Writes the files into a model folder.
    pub(super) fn write(&self, source: &SourceModel, config: &Config, folder: &Path) -> Result<()> {
        if source.path.is_dir() {
            copy(&source.path, &MODEL_FILES, folder)?;
        }
        let generation = folder.join("generation_config.json");
        if !generation.exists() {
            let ids = json!({
                "bos_token_id": config.bos_token_id(),
                "eos_token_id": config.eos_token_id(),
            });
            write_synced(&generation, format!("{ids:#}\n"))?;
        }
        self.write_tokenizer(source, config, folder)
    }

    /// Writes the tokenizer's files.
    pub(super) fn write_tokenizer(
        &self,
        source: &SourceModel,
        config: &Config,
        folder: &Path,
    ) -> Result<()> {
        let class = match self {
            Self::Found(tokenizer, _) if !tokenizer.is_llama() => "PreTrainedTokenizerFast",
            _ => "LlamaTokenizer",
        };
        let (bos, eos) = match self {
            Self::None => return Ok(()),
            Self::Found(tokenizer, place) if place.is_dir() => {
                copy(place, &TOKENIZER_FILES, folder)?;
                names(tokenizer)?
            }
            Self::Found(tokenizer, place) => {
                let bytes = fs::read(place).map_err(Error::io(place))?;
                let name = if is_json(&bytes) {
                    "tokenizer.json"
                } else {
                    "tokenizer.model"
                };
                let path = folder.join(name);
                write_synced(&path, bytes)?;
                names(tokenizer)?
            }
            Self::Inside(vocabulary, json) => {
                write_synced(&folder.join("tokenizer.json"), json)?;
                let text = |id: u32| match vocabulary.tokens.get(id as usize) {
                    Some(token) => Ok(token.text.clone()),
                    None => Err(no_piece(&source.path, id)),
                };
                (text(vocabulary.bos_id)?, text(vocabulary.eos_id)?)
            }
        };
        let settings = folder.join("tokenizer_config.json");
        if settings.exists() {
            return Ok(());
        }
        // Without this file transformers, and so mlx-lm, cannot determine the tokenizer class.
        let mut json = json!({
            "tokenizer_class": class,
            "add_bos_token": true,
            "add_eos_token": false,
            "bos_token": bos,
            "eos_token": eos,
            "model_max_length": config.max_context_length(),
        });
        if class == "LlamaTokenizer" {
            json["unk_token"] = json!("<unk>");
            json["legacy"] = json!(false);
        }
        write_synced(&settings, format!("{json:#}\n"))
    }
}

/// An English text for comparing models.
const SAMPLE: &str = "Long ago, in a village between the hills and the sea, there lived a miller \
    who had three daughters. Every morning the eldest carried flour to the market, the second \
    looked after the geese, and the youngest sat by the window and counted the ships. One day a \
    stranger knocked at the door and asked for bread. He had walked for seven days, he said, and \
    in all that time nobody had given him more than a cup of water.";

/// The pieces of BOS and EOS.
fn names(tokenizer: &Tokenizer) -> Result<(String, String)> {
    let piece = |id| match tokenizer.piece(id) {
        Some(piece) => Ok(piece.to_owned()),
        None => Err(no_piece(tokenizer.path(), id)),
    };
    Ok((piece(tokenizer.bos_id())?, piece(tokenizer.eos_id())?))
}

/// The error of a vocabulary, with the file that holds it.
fn in_file(error: Error, path: &Path) -> Error {
    match error {
        Error::Tokenizer { problem, .. } => Error::tokenizer(path, problem),
        other => other,
    }
}

fn no_piece(path: &Path, id: u32) -> Error {
    Error::tokenizer(path, format!("no piece has the id {id}"))
}

fn copy(from: &Path, names: &[&str], to: &Path) -> Result<()> {
    for name in names {
        let source = from.join(name);
        if source.is_file() {
            copy_synced(&source, &to.join(name))?;
        }
    }
    Ok(())
}
