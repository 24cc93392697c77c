//! The rows of a file.

use std::{
    borrow::Cow,
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use openelm_fix_text::fix_text;
use serde_json::{Value, value::RawValue};

use super::{
    folder::FileFormat,
    json::{self, Object},
    options::Counts,
    preference,
    row::{Content, Row},
};
use crate::{
    error::{Error, Result},
    text_file::{self, MAX_TEXT},
    tokenizer::{ChatTemplate, Message, Role},
};

/// Largest file in bytes: its rows and their tokens are in memory.
const MAX_FILE: u64 = 4 << 30;

/// The kind of a file's rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowKind {
    /// `text`, or a text file.
    Text,
    /// `prompt` and `completion`.
    Completion,
    /// `messages`.
    Messages,
    /// `prompt`, `chosen` and `rejected`.
    Preference,
    /// `instruction`, `output` and, optionally, `input`.
    Instruction,
}

impl RowKind {
    /// The kind of `object` by its keys; the order is mlx-lm's.
    fn of(object: &Object) -> Option<Self> {
        let has = |key| json::optional(object, key).is_some();
        if has("chosen") && has("rejected") {
            Some(Self::Preference)
        } else if has("prompt") && has("completion") {
            Some(Self::Completion)
        } else if has("messages") {
            Some(Self::Messages)
        } else if has("text") {
            Some(Self::Text)
        } else if has("instruction") && has("output") {
            Some(Self::Instruction)
        } else {
            None
        }
    }

    /// The keys, for an error message.
    fn keys(self) -> &'static str {
        match self {
            Self::Text => "`text`",
            Self::Completion => "`prompt` and `completion`",
            Self::Messages => "`messages`",
            Self::Preference => "`prompt`, `chosen` and `rejected`",
            Self::Instruction => "`instruction` and `output`",
        }
    }
}

/// A line of the file with its number, from 1; a text file is one line.
pub(crate) struct Line<'a> {
    number: usize,
    text: &'a str,
}

/// A file of rows.
pub(crate) struct Rows {
    path: PathBuf,
    text: String,
    format: FileFormat,
    kind: RowKind,
    template: ChatTemplate,
    clean_text: bool,
}

impl Rows {
    /// Reads the file, and the kind from its first row. Conversations are rendered with `template`,
    /// or the default of the kind; texts are repaired if `clean_text`.
    pub(crate) fn read(
        path: &Path,
        template: Option<ChatTemplate>,
        clean_text: bool,
    ) -> Result<Self> {
        let format = FileFormat::of(path)?;
        let bytes = contents(path, format)?;
        let mut rows = Self {
            path: path.to_owned(),
            text: decode(path, bytes, format)?,
            format,
            kind: RowKind::Text,
            template: ChatTemplate::default(),
            clean_text,
        };
        if rows.text.trim().is_empty() {
            return Err(rows.error("the file is empty"));
        }
        if format != FileFormat::Text {
            let lines = rows.lines()?;
            let Some(first) = lines.first() else {
                return Err(rows.error("the file is empty"));
            };
            let kind = json::object(first.text)
                .and_then(|object| RowKind::of(&object).ok_or_else(|| unknown_keys(&object)))
                .map_err(|problem| rows.error_at(first.number, problem))?;
            rows.kind = kind;
        }
        rows.template = match (rows.kind, template) {
            (RowKind::Text | RowKind::Completion, Some(_)) => {
                let problem = format!("has no effect on rows of {}", rows.kind.keys());
                return Err(Error::option("chat_template", problem));
            }
            (_, Some(template)) => template,
            (RowKind::Instruction, None) => ChatTemplate::Instruction,
            (_, None) => ChatTemplate::OpenElmInstruct,
        };
        Ok(rows)
    }

    pub(crate) fn kind(&self) -> RowKind {
        self.kind
    }

    /// The template of conversations; `None` for other rows.
    pub(crate) fn chat_template(&self) -> Option<ChatTemplate> {
        match self.kind {
            RowKind::Text | RowKind::Completion => None,
            _ => Some(self.template),
        }
    }

    /// The rows, unparsed.
    pub(crate) fn lines(&self) -> Result<Vec<Line<'_>>> {
        let text = self.text.as_str();
        match self.format {
            FileFormat::Text => Ok(vec![Line { number: 1, text }]),
            FileFormat::Jsonl => {
                let lines = (1..).zip(text.split('\n'));
                let lines = lines.filter(|(_, text)| !text.trim().is_empty());
                Ok(lines.map(|(number, text)| Line { number, text }).collect())
            }
            FileFormat::Json => self.items(),
        }
    }

    /// The items of an array, each with the line on which it begins.
    fn items(&self) -> Result<Vec<Line<'_>>> {
        let items: Vec<&RawValue> = serde_json::from_str(&self.text).map_err(|error| {
            let text = error.to_string();
            let text = text.split(" at line ").next().unwrap_or_default();
            let problem = format!("expected an array of objects: {text}");
            self.error_at(error.line(), problem)
        })?;
        let (mut number, mut before) = (1, 0);
        let lines = items.into_iter().map(|item| {
            let text = item.get();
            let start = text.as_ptr() as usize - self.text.as_ptr() as usize;
            let passed = self.text.get(before..start).unwrap_or_default();
            number += passed.matches('\n').count();
            before = start;
            Line { number, text }
        });
        Ok(lines.collect())
    }

    /// Parses the row on `line`.
    pub(crate) fn parse(&self, line: &Line<'_>) -> Result<Row> {
        if self.format == FileFormat::Text {
            return Ok(Row {
                content: Content::Text(if self.clean_text {
                    fix_text(line.text).into_owned()
                } else {
                    line.text.to_owned()
                }),
                keys: 1,
            });
        }
        json::object(line.text)
            .and_then(|mut object| {
                if self.clean_text {
                    object.values_mut().for_each(clean);
                }
                Ok(Row {
                    content: self.content(&object)?,
                    keys: object.len(),
                })
            })
            .map_err(|problem| self.error_at(line.number, problem))
    }

    fn content(&self, object: &Object) -> Result<Content, String> {
        let content = match self.kind {
            RowKind::Text => json::text(object, "text").map(Content::Text),
            RowKind::Completion => completion(object),
            RowKind::Messages => conversation(object, self.template),
            RowKind::Preference => preference::read(object, self.template),
            RowKind::Instruction => instruction(object, self.template),
        };
        let found = RowKind::of(object);
        content.map_err(|problem| match found {
            Some(found) if found == self.kind => problem,
            _ => format!("{problem}; the file's first row has {}", self.kind.keys()),
        })
    }

    /// An error of the whole file.
    pub(crate) fn error(&self, problem: &str) -> Error {
        Error::data(&self.path, None, problem)
    }

    fn error_at(&self, line: usize, problem: String) -> Error {
        Error::data(&self.path, line, problem)
    }

    /// Refuses a file without usable rows.
    pub(crate) fn check_used(&self, counts: &Counts, max_length: usize) -> Result<()> {
        if counts.examples > 0 {
            return Ok(());
        }
        Err(self.error(&format!(
            "no row is left to train on: all {} have more than {max_length} tokens",
            counts.rows
        )))
    }
}

/// The bytes of a file as UTF-8, without a byte order mark.
fn contents(path: &Path, format: FileFormat) -> Result<Vec<u8>> {
    let source = File::open(path).map(BufReader::new);
    let source = source.and_then(|source| text_file::decoded(Box::new(source)));
    let mut source = source.map_err(Error::io(path))?;
    let mut bytes = Vec::new();
    // The number of the row, from 1, and its length so far.
    let (mut row, mut length) = (1, 0);
    loop {
        let block = source.fill_buf().map_err(Error::io(path))?;
        if block.is_empty() {
            return Ok(bytes);
        }
        let ends = block.split(|&byte| byte == b'\n' && format == FileFormat::Jsonl);
        for (number, part) in ends.enumerate() {
            if number > 0 {
                (row, length) = (row + 1, 0);
            }
            length += part.len() as u64;
            if length > MAX_TEXT {
                let problem = format!("expected at most {MAX_TEXT} bytes, found more");
                return Err(Error::data(path, row, problem));
            }
        }
        bytes.extend(block);
        if bytes.len() as u64 > MAX_FILE {
            let problem = format!("expected at most {MAX_FILE} bytes, found more");
            return Err(Error::data(path, None, problem));
        }
        let read = block.len();
        source.consume(read);
    }
}

/// The bytes of a file as text.
fn decode(path: &Path, bytes: Vec<u8>, format: FileFormat) -> Result<String> {
    String::from_utf8(bytes).map_err(|error| {
        let good = error.utf8_error().valid_up_to();
        let before = error.as_bytes().iter().take(good);
        let line = before.filter(|&&byte| byte == b'\n').count() + 1;
        Error::data(
            path,
            line,
            match format {
                FileFormat::Jsonl | FileFormat::Json => "not UTF-8".to_owned(),
                FileFormat::Text => format!("not UTF-8, at byte {good} of the file"),
            },
        )
    })
}

/// Repairs each text in a value.
fn clean(value: &mut Value) {
    match value {
        Value::String(text) => {
            if let Cow::Owned(fixed) = fix_text(text) {
                *text = fixed;
            }
        }
        Value::Array(items) => items.iter_mut().for_each(clean),
        Value::Object(members) => members.values_mut().for_each(clean),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn completion(object: &Object) -> Result<Content, String> {
    Ok(Content::Completion {
        prompt: json::string(object, "prompt")?.into(),
        completion: json::text(object, "completion")?,
    })
}

fn conversation(object: &Object, template: ChatTemplate) -> Result<Content, String> {
    let messages = json::messages(json::value(object, "messages")?, "messages")?;
    let (before, completion) = json::with_answer(messages, "messages")?;
    let prompt = template.render(&before);
    let prompt = prompt.map_err(|problem| format!("`messages`: {problem}"))?;
    Ok(Content::Completion { prompt, completion })
}

/// CoreNet's template has a block for the input; in others it follows the instruction.
fn instruction(object: &Object, template: ChatTemplate) -> Result<Content, String> {
    let instruction = json::text(object, "instruction")?;
    let input = match json::optional(object, "input") {
        None => String::new(),
        Some(_) => json::string(object, "input")?,
    };
    let completion = json::text(object, "output")?;
    let message = |role, content| Message { role, content };
    let messages = match (template, input.is_empty()) {
        (ChatTemplate::Instruction, false) => vec![
            message(Role::System, input),
            message(Role::User, instruction),
        ],
        (_, true) => vec![message(Role::User, instruction)],
        (_, false) => vec![message(Role::User, format!("{instruction}\n\n{input}"))],
    };
    let prompt = template.render(&messages);
    let prompt = prompt.map_err(|problem| format!("`instruction`: {problem}"))?;
    Ok(Content::Completion { prompt, completion })
}

fn unknown_keys(object: &Object) -> String {
    let stated = object.iter().filter(|(_, value)| !value.is_null());
    let names: Vec<_> = stated.take(8).map(|(key, _)| format!("`{key}`")).collect();
    let found = if names.is_empty() {
        "no key".to_owned()
    } else {
        names.join(", ")
    };
    format!(
        "expected {}, {}, {}, {} or {}; found {found}",
        RowKind::Text.keys(),
        RowKind::Completion.keys(),
        RowKind::Messages.keys(),
        RowKind::Preference.keys(),
        RowKind::Instruction.keys()
    )
}
