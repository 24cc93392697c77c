//! Errors of the program and their exit codes.

use clap::{Arg, Command};
use openelm_core::train::RunDifference;

use crate::interrupt::Signal;

/// An error, shown to the user in one line.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// An error of the library.
    #[error(transparent)]
    Core(#[from] openelm_core::Error),
    /// Invalid command line.
    #[error("{0}")]
    Usage(String),
    /// The prompt's file or stream could not be read.
    #[error("{place}: {problem}")]
    Prompt {
        /// File name, or standard input.
        place: String,
        /// The problem.
        problem: String,
    },
    /// A settings or metrics file that could not be read, or a plot that could not be written.
    #[error("{place}: {problem}")]
    Settings {
        /// The file.
        place: String,
        /// The problem.
        problem: String,
    },
    /// One of several training processes ended early; it has reported the cause.
    #[error("{problem}")]
    Rank {
        /// The rank and its exit status.
        problem: String,
        /// Exit code.
        code: u8,
    },
    /// Standard output could not be written.
    #[error("standard output: {0}")]
    Output(std::io::Error),
    /// A long command's output could not be written. It has ended early with its result saved, or
    /// its result is complete.
    #[error("standard output: {source}; {kept}")]
    Unreported {
        /// The failure of the output.
        source: std::io::Error,
        /// The result that was kept, and how to continue.
        kept: String,
    },
    /// Signals could not be handled.
    #[error("cannot handle Ctrl-C: {0}")]
    Interrupt(std::io::Error),
    /// A signal ended the command.
    #[error("{0}")]
    Interrupted(Signal),
}

impl From<Signal> for Error {
    fn from(signal: Signal) -> Self {
        Self::Interrupted(signal)
    }
}

impl Error {
    /// An error of the output of a command that is no filter, with the result that was `kept`.
    pub(crate) fn unreported(self, kept: impl FnOnce() -> String) -> Self {
        match self {
            Self::Output(source) => Self::Unreported {
                source,
                kept: kept(),
            },
            other => other,
        }
    }

    /// The error in one line. The core's name of an option (`top_p`) becomes the flag of `command`
    /// (`--top-p`).
    pub(crate) fn message(&self, command: &Command) -> String {
        match self {
            Self::Core(openelm_core::Error::Option { option, problem }) => {
                format!("{}: {problem}", flag(command, option))
            }
            Self::Core(openelm_core::Error::OtherRun { path, differences }) => {
                let rename = |difference: &RunDifference| RunDifference {
                    option: flag(command, &difference.option),
                    ..difference.clone()
                };
                let differences = differences.iter().map(rename).collect();
                let path = path.clone();
                openelm_core::Error::OtherRun { path, differences }.to_string()
            }
            Self::Core(error) => match remedy(command, error) {
                Some(remedy) => format!("{error}; {remedy}"),
                None => error.to_string(),
            },
            other => other.to_string(),
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            Self::Usage(_) | Self::Core(openelm_core::Error::Option { .. }) => 2,
            Self::Interrupted(signal) => signal.exit_code(),
            Self::Rank { code, .. } => *code,
            _ => 1,
        }
    }
}

/// The flag of `command` that resolves `error`, with its effect.
fn remedy(command: &Command, error: &openelm_core::Error) -> Option<&'static str> {
    use openelm_core::Error::{Checkpoint, Destination, MissingFile};
    let (name, remedy) = match error {
        Destination { problem, .. } if problem.starts_with("exists") => {
            ("force", "--force replaces it")
        }
        MissingFile { problem, .. } if problem.starts_with("no tokenizer.json") => {
            ("tokenizer", "--tokenizer PATH sets its path")
        }
        Checkpoint { problem, .. } if problem.contains("state the architecture") => {
            ("architecture", "--architecture states it")
        }
        Checkpoint { problem, .. } if problem.contains("start a new run") => {
            ("start-from", "--start-from FOLDER sets its weights")
        }
        _ => return None,
    };
    let mut flags = command.get_arguments().filter_map(Arg::get_long);
    flags.any(|flag| flag == name).then_some(remedy)
}

/// The flag of `command` for the core's `option`; `option` itself if there is none.
fn flag(command: &Command, option: &str) -> String {
    let name = match option {
        // The schedule's length follows from the iterations.
        "schedule_steps" => "iters".to_owned(),
        "files" => "data".to_owned(),
        _ => option.replace('_', "-"),
    };
    // mlx-lm's quantisation flags.
    let quantization = format!("q-{name}");
    let has_name = |arg: &&Arg| {
        let aliases = arg.get_all_aliases().unwrap_or_default();
        let mut names = arg.get_long().into_iter().chain(aliases);
        names.any(|known| known == name || known == quantization)
    };
    let found = command.get_arguments().find(has_name);
    match found.and_then(Arg::get_long) {
        Some(long) => format!("--{long}"),
        None => option.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_become_flags() {
        let command = Command::new("test").args([
            Arg::new("top_p").long("top-p"),
            Arg::new("iters").long("iters").alias("steps"),
            Arg::new("q_bits").long("q-bits"),
        ]);
        for (option, expected) in [
            ("top_p", "--top-p: out of range"),
            ("steps", "--iters: out of range"),
            ("bits", "--q-bits: out of range"),
            ("messages", "messages: out of range"),
        ] {
            let error = Error::Core(openelm_core::Error::Option {
                option,
                problem: "out of range".into(),
            });
            assert_eq!(error.message(&command), expected);
        }
    }
    #[test]
    fn errors_name_the_flag_that_resolves_them() {
        let error = Error::Core(openelm_core::Error::Destination {
            path: "model".into(),
            problem: "exists".into(),
        });
        let command = Command::new("test");
        assert_eq!(error.message(&command), "model: exists");
        let command = command.arg(Arg::new("force").long("force"));
        assert_eq!(
            error.message(&command),
            "model: exists; --force replaces it"
        );
    }
}
