//! What ends the program, and its exit code.

/// A failure, as it is told to the user in one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The library refused or failed.
    #[error(transparent)]
    Core(#[from] openelm_core::Error),
    /// The command line makes no sense.
    #[error("{0}")]
    Usage(String),
    /// The prompt's file or stream could not be read.
    #[error("{place}: {problem}")]
    Prompt {
        /// File name, or standard input.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// A file of settings or metrics could not be read, or a plot not be written.
    #[error("{place}: {problem}")]
    Settings {
        /// The file.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// One of several processes that train together ended early; it has told why.
    #[error("{problem}")]
    Rank {
        /// Which, and how.
        problem: String,
        /// What to end with.
        code: u8,
    },
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// Ctrl-C could not be handled.
    #[error("cannot handle Ctrl-C: {0}")]
    Interrupt(#[from] ctrlc::Error),
    /// Ctrl-C was pressed.
    #[error("interrupted")]
    Interrupted,
}

impl Error {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Core(openelm_core::Error::Option { .. }) => 2,
            Self::Interrupted => 130,
            Self::Rank { code, .. } => *code,
            _ => 1,
        }
    }
}
