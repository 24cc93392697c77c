//! Texts, targets and choices of documents, as lm-eval's `doc_to_text`, `doc_to_target` and
//! `doc_to_choice`.

use std::{
    path::{Path, PathBuf},
    slice::from_ref,
    sync::Arc,
};

use serde_json::Value;

use super::{
    definition::{Definition, Part, Prompt},
    python_literal,
    template::{Document, Fault, Templates},
    yaml,
};
use crate::error::{Error, Result};

/// The compiled parts of a task's prompts.
#[derive(Debug)]
pub(super) struct Prompts {
    source: PathBuf,
    templates: Templates,
    description: String,
    question: Prompt,
    fewshot: Prompt,
    has_choices: bool,
}

/// The prompt of the question, or of an example.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Question,
    Example,
}

/// A document with its place, for errors.
#[derive(Debug, Clone)]
pub(super) struct Placed {
    pub(super) document: Document,
    pub(super) path: Arc<Path>,
    /// Row in the split, from 1.
    pub(super) row: usize,
}

/// `doc_to_text`: a text, or the number of the right choice if choices are contexts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Text {
    Text(String),
    Choice(i64),
}

/// `doc_to_target`.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Target {
    Choice(i64),
    Text(String),
    List(Vec<Value>),
}

impl Prompts {
    /// Compiles the templates of `task`.
    ///
    /// # Errors
    /// [`Error::Config`] with key and line for a mistake of syntax.
    pub(super) fn new(task: &Definition) -> Result<Self> {
        let mut templates = Templates::new();
        let mut add = |key: &'static str, template: &str| {
            let place = key
                .strip_prefix("example.")
                .map_or_else(|| key.to_owned(), |key| format!("fewshot_config.{key}"));
            let added = templates.add(key, template);
            added.map_err(|problem| yaml::fault(&task.source, &place, problem))
        };
        add("description", &task.description)?;
        for (role, prompt) in [
            (Role::Question, &task.question),
            (Role::Example, &task.fewshot.prompt),
        ] {
            let parts = [
                (TEXT, Some(&prompt.doc_to_text)),
                (TARGET, Some(&prompt.doc_to_target)),
                (CHOICE, prompt.doc_to_choice.as_ref()),
            ];
            for (keys, part) in parts {
                if let Some(Part::Text(template)) = part {
                    add(keys[role as usize], template)?;
                }
            }
        }
        Ok(Self {
            source: task.source.clone(),
            templates,
            description: task.description.clone(),
            question: task.question.clone(),
            fewshot: task.fewshot.prompt.clone(),
            has_choices: task.question.doc_to_choice.is_some(),
        })
    }

    /// The delimiters of `role`.
    pub(super) fn prompt(&self, role: Role) -> &Prompt {
        match role {
            Role::Question => &self.question,
            Role::Example => &self.fewshot,
        }
    }

    /// The text before all examples.
    pub(super) fn description(&self, document: &Placed) -> Result<String> {
        if self.description.is_empty() {
            return Ok(String::new());
        }
        match document.document.columns.get(&self.description) {
            Some(Value::String(text)) => Ok(text.clone()),
            Some(other) => Err(self.wrong("description", document, "text", other)),
            None => self.render("description", document),
        }
    }

    /// The document's question.
    pub(super) fn text(&self, role: Role, document: &Placed) -> Result<Text> {
        let key = TEXT[role as usize];
        let template = match &self.prompt(role).doc_to_text {
            Part::Number(number) => return Ok(Text::Choice(*number)),
            Part::List(_) => return Err(self.fault(key, document, "expected text".into())),
            Part::Text(template) => template,
        };
        match document.document.columns.get(template) {
            Some(Value::String(text)) => return Ok(Text::Text(text.clone())),
            Some(value) => {
                let number = value.as_i64().filter(|_| self.has_choices);
                return number.map(Text::Choice).ok_or_else(|| {
                    self.wrong(key, document, "text, or the number of a choice", value)
                });
            }
            None => {}
        }
        let text = self.render(key, document)?;
        Ok(match self.digits(key, document, &text)? {
            Some(number) => Text::Choice(number),
            None => Text::Text(text),
        })
    }

    /// The document's answer.
    pub(super) fn target(&self, role: Role, document: &Placed) -> Result<Target> {
        let key = TARGET[role as usize];
        let template = match &self.prompt(role).doc_to_target {
            Part::Number(number) => return Ok(Target::Choice(*number)),
            Part::List(values) => return Ok(Target::List(values.clone())),
            Part::Text(template) => template,
        };
        if let Some(value) = document.document.columns.get(template) {
            return match value {
                Value::String(text) => Ok(Target::Text(text.clone())),
                Value::Array(values) => Ok(Target::List(values.clone())),
                // Python's booleans are numbers.
                Value::Bool(flag) => Ok(Target::Choice((*flag).into())),
                other => other.as_i64().map(Target::Choice).ok_or_else(|| {
                    self.wrong(
                        key,
                        document,
                        "text, a list or the number of a choice",
                        other,
                    )
                }),
            };
        }
        let text = self.render(key, document)?;
        if let Some(number) = self.digits(key, document, &text)? {
            return Ok(Target::Choice(number));
        }
        if text.len() >= 2
            && text.starts_with('[')
            && text.ends_with(']')
            && let Ok(Value::Array(values)) = python_literal::parse(&text)
        {
            return Ok(Target::List(values));
        }
        Ok(Target::Text(text))
    }

    /// The document's choices; `None` if the task has none.
    pub(super) fn choices(&self, role: Role, document: &Placed) -> Result<Option<Vec<String>>> {
        let key = CHOICE[role as usize];
        let values = match &self.prompt(role).doc_to_choice {
            None => return Ok(None),
            Some(Part::List(values)) => values.clone(),
            Some(Part::Number(_)) => return Ok(None),
            Some(Part::Text(template)) => match document.document.columns.get(template) {
                Some(Value::Array(values)) => values.clone(),
                Some(other) => return Err(self.wrong(key, document, "a list of texts", other)),
                None if is_name(template) => {
                    return Err(missing(from_ref(template), document));
                }
                None => {
                    let text = self.render(key, document)?;
                    match python_literal::parse(&text) {
                        Ok(Value::Array(values)) => values,
                        Ok(other) => {
                            return Err(self.wrong(key, document, "a list of texts", &other));
                        }
                        Err(problem) => {
                            let problem = format!("expected a list of texts: {problem}");
                            return Err(self.fault(key, document, problem));
                        }
                    }
                }
            },
        };
        if values.is_empty() {
            return Err(self.fault(key, document, "expected at least one choice".into()));
        }
        let choices = values.into_iter().map(|value| match value {
            Value::String(choice) => Ok(choice),
            other => Err(self.wrong(key, document, "a list of texts", &other)),
        });
        choices.collect::<Result<_>>().map(Some)
    }

    /// An error if `doc_to_target` is one word that is neither a choice nor a column.
    pub(super) fn check_target(&self, document: &Placed) -> Result<()> {
        match &self.question.doc_to_target {
            Part::Text(name) if is_name(name) && !document.document.columns.contains_key(name) => {
                Err(missing(from_ref(name), document))
            }
            _ => Ok(()),
        }
    }

    /// A problem of the part `key` for a document.
    pub(super) fn fault(&self, key: &str, document: &Placed, problem: String) -> Error {
        let key = key.strip_prefix("example.").unwrap_or(key);
        let place = format!("document {} of {}", document.row, document.path.display());
        yaml::fault(&self.source, key, format!("{place}: {problem}"))
    }

    fn wrong(&self, key: &str, document: &Placed, expected: &str, found: &Value) -> Error {
        self.fault(key, document, format!("expected {expected}, found {found}"))
    }

    fn render(&self, key: &str, document: &Placed) -> Result<String> {
        let rendered = self.templates.render(key, &document.document);
        rendered.map_err(|fault| match fault {
            Fault::MissingColumns(names) => missing(&names, document),
            Fault::Problem(problem) => self.fault(key, document, problem),
        })
    }

    /// A text of digits as a number, if the task has choices.
    fn digits(&self, key: &str, document: &Placed, text: &str) -> Result<Option<i64>> {
        if !self.has_choices || text.is_empty() || !text.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(None);
        }
        match python_literal::parse(text).map(|value| value.as_i64()) {
            Ok(Some(number)) => Ok(Some(number)),
            _ => {
                let problem = format!("expected a number, found `{text}`");
                Err(self.fault(key, document, problem))
            }
        }
    }
}

/// Names of the templates, of questions and of examples.
const TEXT: [&str; 2] = ["doc_to_text", "example.doc_to_text"];
const TARGET: [&str; 2] = ["doc_to_target", "example.doc_to_target"];
const CHOICE: [&str; 2] = ["doc_to_choice", "example.doc_to_choice"];

/// True for a word, which is meant as a column.
fn is_name(text: &str) -> bool {
    let mut characters = text.chars();
    characters
        .next()
        .is_some_and(|c| c.is_alphabetic() || c == '_')
        && characters.all(|c| c.is_alphanumeric() || c == '_')
}

/// Columns that a document lacks.
fn missing(names: &[String], document: &Placed) -> Error {
    let list = |names: &mut dyn Iterator<Item = &String>| {
        names
            .map(|name| format!("`{name}`"))
            .collect::<Vec<_>>()
            .join(", ")
    };
    let verb = if names.len() == 1 { "is" } else { "are" };
    let problem = format!(
        "document {}: {} {verb} missing; found the columns {}",
        document.row,
        list(&mut names.iter()),
        list(&mut document.document.columns.keys()),
    );
    Error::data(&*document.path, None, problem)
}
