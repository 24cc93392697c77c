//! The rows of `--prompts`: JSON lines.

use std::path::{Path, PathBuf};

use openelm_core::{
    chat::Message,
    dataset::{messages_from_json, object_from_json},
    text::{MAX_TEXT, read_text_file},
};
use serde_json::Value;

use super::{text_options::TextOptions, written};
use crate::{copied_keys::written_values, error::Error};

/// Keys that a text adds to its row.
pub(super) const ADDED: [&str; 4] = ["text", "finish_reason", "prompt_tokens", "generated_tokens"];

/// The rows of a file, at least one.
pub(super) struct Rows {
    file: PathBuf,
    rows: Vec<Row>,
}

/// A row.
pub(super) struct Row {
    /// Position among the rows, from 0.
    pub(super) index: usize,
    /// Line of the file, from 1.
    pub(super) line: usize,
    /// The keys that its text copies, with their values as they are written, on one line. A `seed`
    /// of null is none.
    pub(super) copied: Vec<(String, String)>,
    pub(super) prompt: Prompt,
    pub(super) max_tokens: Option<usize>,
    pub(super) seed: Option<u64>,
    pub(super) stop: Option<Vec<String>>,
}

/// A row's prompt.
pub(super) enum Prompt {
    Text(String),
    Messages(Vec<Message>),
}

impl Rows {
    /// Reads all rows of `file`. Blank lines are skipped.
    ///
    /// # Errors
    /// The file's, and the first malformed row with its line.
    pub(super) fn read(file: PathBuf) -> Result<Self, Error> {
        let place = file.display().to_string();
        let text = read_text_file(&file, MAX_TEXT).map_err(|error| Error::Prompt {
            place: place.clone(),
            problem: error.to_string(),
        })?;
        let mut rows = Self {
            file,
            rows: Vec::new(),
        };
        for (line, text) in (1..).zip(text.lines()) {
            if !text.trim().is_empty() {
                let row = Row::read(rows.rows.len(), line, text);
                rows.rows
                    .push(row.map_err(|problem| rows.error(line, problem))?);
            }
        }
        if rows.rows.is_empty() {
            let problem = "expected a JSON object on each line, found no line".into();
            return Err(Error::Prompt { place, problem });
        }
        Ok(rows)
    }

    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }

    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    pub(super) fn as_slice(&self) -> &[Row] {
        &self.rows
    }

    /// Number of rows whose text is in `output` already, with `options`.
    ///
    /// # Errors
    /// As [`written::count`].
    pub(super) fn written(
        &self,
        output: Option<&Path>,
        options: &TextOptions,
    ) -> Result<usize, Error> {
        let written = output.map(|output| written::count(self, options, output));
        Ok(written.transpose()?.map_or(0, |written| written.rows))
    }

    /// The error of a row.
    pub(super) fn error(&self, line: usize, problem: impl ToString) -> Error {
        Error::Prompt {
            place: format!("{}: line {line}", self.file.display()),
            problem: problem.to_string(),
        }
    }
}

impl Row {
    fn read(index: usize, line: usize, text: &str) -> Result<Self, String> {
        let object = object_from_json(text)?;
        if let Some(key) = ADDED.iter().find(|key| object.contains_key(**key)) {
            return Err(format!("`{key}`: a key of the output, expected other keys"));
        }
        if object.contains_key("adapter") {
            return Err(
                "`adapter`: expected one set of adapters for all rows, by --adapter".into(),
            );
        }
        let value = |key: &str| object.get(key).filter(|value| !value.is_null());
        let prompt = match (value("prompt"), value("messages")) {
            (Some(Value::String(text)), None) if text.is_empty() => {
                return Err("`prompt` is empty".into());
            }
            (Some(Value::String(text)), None) => Prompt::Text(text.clone()),
            (None, Some(list)) => Prompt::Messages(messages_from_json(list, "messages")?),
            (Some(_), None) => return Err("`prompt`: expected a string".into()),
            (Some(_), Some(_)) => {
                return Err("expected `prompt` or `messages`, found both".into());
            }
            (None, None) => return Err("`prompt` is missing".into()),
        };
        let number = |key: &str| match value(key).map(Value::as_u64) {
            None => Ok(None),
            Some(Some(number)) => Ok(Some(number)),
            Some(None) => Err(format!("`{key}`: expected a whole number, at least 0")),
        };
        let stop = match value("stop") {
            None => None,
            Some(Value::String(text)) => Some(vec![text.clone()]),
            Some(Value::Array(list)) => {
                let texts = list.iter().map(|item| item.as_str().map(str::to_owned));
                let texts: Option<Vec<_>> = texts.collect();
                Some(texts.ok_or("`stop`: expected strings")?)
            }
            Some(_) => return Err("`stop`: expected a string or a list of strings".into()),
        };
        let max_tokens = number("max_tokens")?.map(usize::try_from).transpose();
        let seed = number("seed")?;
        let mut values = written_values(text)?;
        if seed.is_none() {
            values.remove("seed");
        }
        // In the order of the row.
        let copied = object.keys().filter_map(|key| values.remove_entry(key));
        let copied = copied.collect();
        Ok(Self {
            index,
            line,
            prompt,
            max_tokens: max_tokens.map_err(|error| format!("`max_tokens`: {error}"))?,
            seed,
            stop,
            copied,
        })
    }
}
