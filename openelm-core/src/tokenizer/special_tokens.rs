//! BOS and EOS of a tokenizer, from the files beside it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::{
    error::{Error, Result},
    json,
    text_file::{self, MAX_SETTINGS},
};

/// Names and ids of BOS and EOS, as far as files state them.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct SpecialTokens {
    pub(super) bos: Token,
    pub(super) eos: Token,
}

/// One special token.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Token {
    /// Names in the vocabulary, by preference.
    pub(super) names: Vec<String>,
    /// Ids, by preference.
    pub(super) ids: Vec<u32>,
}

impl SpecialTokens {
    /// Reads `tokenizer_config.json` and `special_tokens_map.json` (names), then
    /// `generation_config.json` and `config.json` (ids) of `folders`.
    ///
    /// # Errors
    /// [`Error::Tokenizer`], with the file, if one is not a JSON object.
    pub(super) fn read(folders: &[&Path]) -> Result<Self> {
        let mut tokens = Self::default();
        for folder in folders {
            for name in ["tokenizer_config.json", "special_tokens_map.json"] {
                let settings = object(&folder.join(name))?;
                tokens.bos.add_names(&settings, ["bos_token", "cls_token"]);
                tokens.eos.add_names(&settings, ["eos_token", "sep_token"]);
            }
        }
        for folder in folders {
            for name in ["generation_config.json", "config.json"] {
                let settings = object(&folder.join(name))?;
                tokens.bos.add_ids(settings.get("bos_token_id"));
                tokens.eos.add_ids(settings.get("eos_token_id"));
            }
        }
        Ok(tokens)
    }
}

impl SpecialTokens {
    /// Adds the names `bos` and `eos`, which the tokenizer's file has by default.
    pub(super) fn or(mut self, bos: &str, eos: &str) -> Self {
        self.bos.names.push(bos.to_owned());
        self.eos.names.push(eos.to_owned());
        self
    }
}

impl Token {
    /// Adds the first of `keys` that is stated.
    fn add_names(&mut self, settings: &Map<String, Value>, keys: [&str; 2]) {
        let name = keys.iter().find_map(|key| {
            let value = settings.get(*key)?;
            value.as_str().or_else(|| value.get("content")?.as_str())
        });
        self.names.extend(name.map(str::to_owned));
    }

    /// Adds an id, or the first id of a list.
    fn add_ids(&mut self, value: Option<&Value>) {
        let first = value.and_then(|value| match value {
            Value::Array(list) => list.first(),
            other => Some(other),
        });
        let id = first.and_then(Value::as_u64);
        self.ids.extend(id.and_then(|id| u32::try_from(id).ok()));
    }
}

/// The object in the file at `path`, empty if there is no file.
fn object(path: &Path) -> Result<Map<String, Value>> {
    if !path.is_file() {
        return Ok(Map::new());
    }
    let wrong = |problem: String| Error::tokenizer(path, problem);
    let text = text_file::read(path, MAX_SETTINGS, wrong)?;
    json::parse(&text).map_err(|error| wrong(error.to_string()))
}
