//! The prompt of a command: its text, a file, or standard input.

use std::{
    io::{self, IsTerminal},
    path::{Path, PathBuf},
};

use openelm_core::text::{MAX_TEXT, read_text, read_text_file};

use crate::error::Error;

/// Options of the prompt.
#[derive(clap::Args)]
pub(crate) struct PromptSource {
    /// Prompt; `-` reads standard input
    #[arg(
        long,
        short,
        value_name = "TEXT",
        allow_hyphen_values = true,
        conflicts_with = "prompt_file"
    )]
    prompt: Option<String>,

    /// File with the prompt, in UTF-8 or UTF-16
    #[arg(long, value_name = "FILE")]
    prompt_file: Option<PathBuf>,
}

impl PromptSource {
    /// The file of the prompt, if it is in one.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.prompt_file.as_deref()
    }

    /// Reads the prompt.
    ///
    /// # Errors
    /// If it cannot be read, or is empty.
    pub(crate) fn read(&self) -> Result<String, Error> {
        let (place, read) = if let Some(file) = &self.prompt_file {
            let read = read_text_file(file, MAX_TEXT);
            (file.display().to_string(), read)
        } else {
            match self.prompt.as_deref() {
                Some("-") => {}
                // A shell's `$(cat FILE)` keeps the byte order mark of the file.
                Some(text) => {
                    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
                    if text.is_empty() {
                        return Err(Error::Usage("--prompt: the prompt is empty".into()));
                    }
                    return Ok(text.to_owned());
                }
                None if io::stdin().is_terminal() => {
                    let hint =
                        "no prompt; use --prompt TEXT, --prompt-file FILE, or standard input";
                    return Err(Error::Usage(hint.into()));
                }
                None => {}
            }
            (
                "standard input".to_owned(),
                read_text(io::stdin(), MAX_TEXT),
            )
        };
        let mut text = read.map_err(|error| Error::Prompt {
            place: place.clone(),
            problem: error.to_string(),
        })?;
        // Editors and `echo` end a file with a line break that is not part of the prompt.
        if text.ends_with('\n') {
            text.pop();
            if text.ends_with('\r') {
                text.pop();
            }
        }
        if text.is_empty() {
            return Err(Error::Usage(format!("{place}: the prompt is empty")));
        }
        Ok(text)
    }
}
