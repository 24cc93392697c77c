//! The rows of `--jsonl`: requests in JSON lines.

use std::{
    io::{self, IsTerminal},
    path::Path,
};

use openelm_core::{
    dataset::object_from_json,
    evaluate::ScoreRequest,
    text::{MAX_TEXT, read_text, read_text_file},
};
use serde_json::Value;

use crate::{copied_keys::written_values, error::Error};

/// Keys of a result.
const ADDED: [&str; 7] = [
    "logprob",
    "is_greedy",
    "tokens",
    "truncated",
    "bytes",
    "token_ids",
    "token_logprobs",
];

/// The rows of a file, at least one.
pub(super) struct Rows<'a> {
    /// `None` for standard input.
    file: Option<&'a Path>,
    rows: Vec<Row>,
}

/// A row.
pub(super) struct Row {
    /// Line of the file, from 1.
    pub(super) line: usize,
    pub(super) request: Request,
    /// The keys that the result copies, all but the request's, with their values as they are
    /// written, on one line.
    pub(super) copied: Vec<(String, String)>,
}

/// A row's request.
pub(super) enum Request {
    Continuation(ScoreRequest),
    Text(String),
}

impl<'a> Rows<'a> {
    /// Reads all rows of `file`; `None` and `-` are standard input. Blank lines are skipped.
    ///
    /// # Errors
    /// The file's, and the first malformed row with its line.
    pub(super) fn read(file: Option<&'a Path>) -> Result<Self, Error> {
        let file = file.filter(|path| *path != Path::new("-"));
        let mut rows = Self {
            file,
            rows: Vec::new(),
        };
        let text = match file {
            Some(file) => read_text_file(file, MAX_TEXT),
            None if io::stdin().is_terminal() => {
                let hint = "no requests; use --jsonl FILE, or standard input";
                return Err(Error::Usage(hint.into()));
            }
            None => read_text(io::stdin(), MAX_TEXT),
        };
        let text = text.map_err(|error| rows.error(None, error))?;
        for (line, text) in (1..).zip(text.lines()) {
            if !text.trim().is_empty() {
                let row = Row::read(line, text);
                rows.rows
                    .push(row.map_err(|problem| rows.error(line, problem))?);
            }
        }
        if rows.rows.is_empty() {
            let problem = "expected a JSON object on each line, found no line";
            return Err(rows.error(None, problem));
        }
        Ok(rows)
    }

    pub(super) fn as_slice(&self) -> &[Row] {
        &self.rows
    }

    /// The error of a line, or of all lines.
    pub(super) fn error(&self, line: impl Into<Option<usize>>, problem: impl ToString) -> Error {
        let file = self.file.map(|file| file.display().to_string());
        let file = file.unwrap_or_else(|| "standard input".to_owned());
        Error::Prompt {
            place: match line.into() {
                Some(line) => format!("{file}: line {line}"),
                None => file,
            },
            problem: problem.to_string(),
        }
    }
}

impl Row {
    fn read(line: usize, text: &str) -> Result<Self, String> {
        let mut object = object_from_json(text)?;
        let mut values = written_values(text)?;
        if let Some(key) = ADDED.iter().find(|key| object.contains_key(**key)) {
            return Err(format!("`{key}`: a key of the output, expected other keys"));
        }
        let mut text = |key: &str| match object.shift_remove(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(format!("`{key}`: expected a string")),
        };
        let (context, continuation, whole) =
            (text("context")?, text("continuation")?, text("text")?);
        let request = match (context, continuation, whole) {
            (None, None, Some(text)) if text.is_empty() => return Err("`text` is empty".into()),
            (None, None, Some(text)) => Request::Text(text),
            (_, Some(continuation), None) if continuation.is_empty() => {
                return Err("`continuation` is empty".into());
            }
            (Some(context), Some(continuation), None) => Request::Continuation(ScoreRequest {
                context: context.into(),
                continuation,
            }),
            (None, Some(_), None) => return Err("`context` is missing".into()),
            (Some(_), None, None) => return Err("`continuation` is missing".into()),
            (None, None, None) => {
                return Err("`continuation` or `text` is missing".into());
            }
            (_, _, Some(_)) => {
                return Err("expected `continuation` or `text`, found both".into());
            }
        };
        // In the order of the row.
        let copied = object.keys().filter_map(|key| values.remove_entry(key));
        let copied = copied.collect();
        Ok(Self {
            line,
            request,
            copied,
        })
    }
}
