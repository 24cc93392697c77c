//! Options of structured output.

use std::path::{Path, PathBuf};

use openelm_core::{
    constraint::{AtLimit, ConstraintKind},
    text::{MAX_SETTINGS, read_text_file},
};

use crate::error::Error;

/// A constraint on the generated text; at most one of the options.
#[derive(clap::Args)]
#[group(multiple = false)]
pub(crate) struct ConstraintArgs {
    /// Write JSON that is valid under the JSON schema in this file
    #[arg(long, value_name = "FILE")]
    json_schema: Option<PathBuf>,

    /// Write text that matches this regular expression as a whole
    #[arg(long, value_name = "REGEX", allow_hyphen_values = true)]
    regex: Option<String>,

    /// Write a sentence of the Lark grammar in this file, whose start rule is `start`
    #[arg(long, value_name = "FILE")]
    grammar: Option<PathBuf>,

    /// Write this text, or that of another --choice
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    choice: Vec<String>,
}

/// The end of a structured text at its limit.
#[derive(Clone, Copy, clap::ValueEnum)]
pub(crate) enum AtLimitChoice {
    Stop,
    Error,
    Close,
}

impl From<AtLimitChoice> for AtLimit {
    fn from(choice: AtLimitChoice) -> Self {
        match choice {
            AtLimitChoice::Stop => Self::Stop,
            AtLimitChoice::Error => Self::Error,
            AtLimitChoice::Close => Self::Close,
        }
    }
}

impl ConstraintArgs {
    /// The constraint of the options.
    pub(crate) fn read(self) -> Result<Option<ConstraintKind>, Error> {
        Ok(if let Some(path) = self.json_schema {
            Some(ConstraintKind::JsonSchema(text("--json-schema", &path)?))
        } else if let Some(regex) = self.regex {
            Some(ConstraintKind::Regex(regex))
        } else if let Some(path) = self.grammar {
            Some(ConstraintKind::Grammar(text("--grammar", &path)?))
        } else if self.choice.is_empty() {
            None
        } else {
            Some(ConstraintKind::Choice(self.choice))
        })
    }
}

/// The text of a file.
fn text(option: &str, path: &Path) -> Result<String, Error> {
    read_text_file(path, MAX_SETTINGS).map_err(|error| Error::Prompt {
        place: format!("{option} {}", path.display()),
        problem: error.to_string(),
    })
}
