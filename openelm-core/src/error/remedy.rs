//! Remedies of errors: typed, so that each front end names its own options.

use std::fmt::{self, Display};

/// An action that resolves an [`Error`](crate::Error). Its text names no option of a front end.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Remedy {
    /// State the path of a tokenizer.
    Tokenizer,
    /// Allow the replacement of an existing file or folder.
    Force,
    /// State the architecture of a checkpoint.
    Architecture,
    /// Begin a new run; the text says from which weights.
    StartFrom(&'static str),
    /// Resume the run.
    Resume,
    /// Convert the file to a model folder.
    Convert,
    /// Download a repository of the Hugging Face Hub, `owner/name`.
    Download(String),
}

impl Display for Remedy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tokenizer => f.write_str("give its path, or copy it into the model's folder"),
            Self::Force => f.write_str("allow its replacement, or choose another path"),
            Self::Architecture => {
                f.write_str("state the architecture: the name of a size, or a config.json")
            }
            Self::StartFrom(text) => f.write_str(text),
            Self::Resume => f.write_str("resume it, or choose another folder"),
            Self::Convert => f.write_str("convert it to a model folder first"),
            Self::Download(repository) => write!(
                f,
                "if `{repository}` is a repository of the Hugging Face Hub, download it first"
            ),
        }
    }
}
