//! The user's lines: with an editor and a history at a terminal, else standard input.

use std::io::{self, BufRead, IsTerminal, Read};

use openelm_core::text::MAX_TEXT;
use rustyline::{Config, Editor, error::ReadlineError, history::MemHistory};

use crate::error::Error;

const PROMPT: &str = "> ";

/// The source of lines.
pub(super) enum Input {
    /// The history is not saved.
    Terminal(Box<Editor<(), MemHistory>>),
    Lines {
        is_first: bool,
    },
}

impl Input {
    /// The editor if standard input and standard output are a terminal.
    pub(super) fn open() -> Result<Self, Error> {
        if !(io::stdin().is_terminal() && io::stdout().is_terminal()) {
            return Ok(Self::Lines { is_first: true });
        }
        let config = Config::builder().auto_add_history(true).build();
        let history = MemHistory::with_config(&config);
        let editor = Editor::with_history(config, history);
        Ok(Self::Terminal(Box::new(editor.map_err(wrong)?)))
    }

    pub(super) fn is_terminal(&self) -> bool {
        matches!(self, Self::Terminal(_))
    }

    /// The next line; `None` at the end of the input, Ctrl-D. Ctrl-C discards the line.
    pub(super) fn line(&mut self) -> Result<Option<String>, Error> {
        match self {
            Self::Terminal(editor) => loop {
                match editor.readline(PROMPT) {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Interrupted) => {}
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(error) => return Err(wrong(error)),
                }
            },
            Self::Lines { is_first } => {
                let mut line = String::new();
                let mut source = io::stdin().lock().take(MAX_TEXT + 1);
                if source.read_line(&mut line).map_err(wrong)? == 0 {
                    return Ok(None);
                }
                if line.len() as u64 > MAX_TEXT {
                    let problem = format!("expected a line of at most {MAX_TEXT} bytes");
                    return Err(wrong(problem));
                }
                // The input may begin with a byte order mark.
                if std::mem::take(is_first) && line.starts_with('\u{feff}') {
                    line.remove(0);
                }
                Ok(Some(line))
            }
        }
    }
}

fn wrong(problem: impl ToString) -> Error {
    Error::Prompt {
        place: "standard input".into(),
        problem: problem.to_string(),
    }
}
