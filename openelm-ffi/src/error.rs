//! The error type of this crate: the core's error kinds.

use openelm_core::{self as core, ErrorKind};

/// The result of a call.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the core, by its [`ErrorKind`]. `message` is the complete text.
#[derive(Debug, Clone, PartialEq, thiserror::Error, uniffi::Error)]
#[error("{}", self.message())]
#[allow(missing_docs, reason = "the variants are openelm_core::ErrorKind's")]
pub enum Error {
    Io {
        path: String,
        message: String,
    },
    MissingFile {
        path: String,
        message: String,
    },
    InvalidConfig {
        path: String,
        message: String,
    },
    InvalidCheckpoint {
        path: String,
        message: String,
    },
    InvalidTokenizer {
        path: String,
        message: String,
    },
    InvalidData {
        path: String,
        line: Option<u64>,
        message: String,
    },
    InvalidAdapter {
        path: String,
        message: String,
    },
    /// `option` is the core's option name; the message begins with it.
    InvalidOption {
        option: String,
        message: String,
    },
    PromptTooLong {
        tokens: u64,
        context: u64,
        message: String,
    },
    /// A structured text is incomplete at its limit.
    Incomplete {
        tokens: u64,
        message: String,
    },
    Diverged {
        iteration: u64,
        loss: f32,
        message: String,
    },
    Distributed {
        message: String,
    },
    Destination {
        path: String,
        message: String,
    },
    OtherRun {
        path: String,
        differences: Vec<RunDifference>,
        message: String,
    },
    Verification {
        path: String,
        message: String,
    },
    Cancelled {
        message: String,
    },
    Device {
        message: String,
    },
    /// The conversation is already answering.
    Busy {
        message: String,
    },
    /// The model was unloaded.
    Unloaded {
        message: String,
    },
    /// The library panicked, or returned an error unknown to this crate. The call failed; later
    /// calls work.
    Unexpected {
        message: String,
    },
    /// The thread that runs MLX has ended. No later call in this process can succeed.
    Unusable {
        message: String,
    },
}

/// An option that differs from the saved run; `option` is the core's option name.
#[derive(Debug, Clone, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::train::RunDifference")]
pub struct RunDifference {
    pub option: String,
    pub expected: String,
    pub found: String,
}

impl Error {
    /// The engine's thread has ended.
    pub(crate) fn unusable() -> Self {
        core::Error::Unusable.into()
    }

    fn message(&self) -> &str {
        match self {
            Self::Io { message, .. }
            | Self::MissingFile { message, .. }
            | Self::InvalidConfig { message, .. }
            | Self::InvalidCheckpoint { message, .. }
            | Self::InvalidTokenizer { message, .. }
            | Self::InvalidData { message, .. }
            | Self::InvalidAdapter { message, .. }
            | Self::InvalidOption { message, .. }
            | Self::PromptTooLong { message, .. }
            | Self::Incomplete { message, .. }
            | Self::Diverged { message, .. }
            | Self::Distributed { message }
            | Self::Destination { message, .. }
            | Self::OtherRun { message, .. }
            | Self::Verification { message, .. }
            | Self::Cancelled { message }
            | Self::Device { message }
            | Self::Busy { message }
            | Self::Unloaded { message }
            | Self::Unexpected { message }
            | Self::Unusable { message } => message,
        }
    }
}

impl From<core::Error> for Error {
    fn from(error: core::Error) -> Self {
        let message = error.to_string();
        let path = error.path().map(|path| path.to_string_lossy().into_owned());
        let path = path.unwrap_or_default();
        // The message has the remedy.
        let error = match error {
            core::Error::WithRemedy { error, .. } => *error,
            error => error,
        };
        // Matches all kinds, so that a kind added to the core does not compile without a variant
        // here.
        match (error.kind(), error) {
            (ErrorKind::Io, core::Error::Io { source, .. })
                if source.kind() == std::io::ErrorKind::NotFound =>
            {
                Self::MissingFile { path, message }
            }
            (ErrorKind::Io, _) => Self::Io { path, message },
            (ErrorKind::MissingFile, _) => Self::MissingFile { path, message },
            (ErrorKind::InvalidConfig, _) => Self::InvalidConfig { path, message },
            (ErrorKind::InvalidCheckpoint, _) => Self::InvalidCheckpoint { path, message },
            (ErrorKind::InvalidTokenizer, _) => Self::InvalidTokenizer { path, message },
            (ErrorKind::InvalidData, core::Error::Data { line, .. }) => Self::InvalidData {
                path,
                line: line.map(|line| line as u64),
                message,
            },
            (ErrorKind::InvalidAdapter, _) => Self::InvalidAdapter { path, message },
            (ErrorKind::InvalidOption, core::Error::Option { option, .. }) => {
                let option = option.into();
                Self::InvalidOption { option, message }
            }
            (ErrorKind::InvalidOption, core::Error::Dtype { .. }) => {
                let option = "dtype".into();
                Self::InvalidOption { option, message }
            }
            (ErrorKind::InvalidOption, core::Error::Incomplete { tokens }) => Self::Incomplete {
                tokens: tokens as u64,
                message,
            },
            (ErrorKind::PromptTooLong, core::Error::PromptTooLong { tokens, context }) => {
                Self::PromptTooLong {
                    tokens: tokens as u64,
                    context: context as u64,
                    message,
                }
            }
            (ErrorKind::Diverged, core::Error::Diverged { iteration, loss }) => Self::Diverged {
                iteration,
                loss,
                message,
            },
            (ErrorKind::Distributed, _) => Self::Distributed { message },
            (ErrorKind::Destination, _) => Self::Destination { path, message },
            (ErrorKind::OtherRun, core::Error::OtherRun { differences, .. }) => Self::OtherRun {
                path,
                differences: differences.into_iter().map(RunDifference::from).collect(),
                message,
            },
            (ErrorKind::Verification, _) => Self::Verification { path, message },
            (ErrorKind::Cancelled, _) => Self::Cancelled { message },
            (ErrorKind::Device, _) => Self::Device { message },
            (ErrorKind::Busy, _) => Self::Busy { message },
            (ErrorKind::Unloaded, _) => Self::Unloaded { message },
            (ErrorKind::Unexpected, _) => Self::Unexpected { message },
            (ErrorKind::Unusable, _) => Self::Unusable { message },
            // Errors whose fields the kind's variant needs but the core did not give.
            (
                ErrorKind::InvalidData
                | ErrorKind::InvalidOption
                | ErrorKind::PromptTooLong
                | ErrorKind::Diverged
                | ErrorKind::OtherRun,
                _,
            ) => Self::Unexpected { message },
        }
    }
}

impl From<core::train::RunDifference> for RunDifference {
    fn from(difference: core::train::RunDifference) -> Self {
        Self {
            option: difference.option,
            expected: difference.expected,
            found: difference.found,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path() -> std::path::PathBuf {
        "out".into()
    }

    fn problem() -> String {
        "the problem".into()
    }

    #[test]
    fn errors_with_a_path_keep_their_kind() {
        let (file, tensor) = (
            core::Error::MissingFile {
                path: path(),
                problem: problem(),
            },
            core::Error::UnexpectedTensor {
                path: path(),
                name: "x".into(),
            },
        );
        let destination = core::Error::Destination {
            path: path(),
            problem: problem(),
        };
        let data = core::Error::Data {
            path: path(),
            line: Some(3),
            problem: problem(),
        };
        let path = || "out".to_owned();
        let cases = [
            (file, |path, message| Error::MissingFile { path, message }),
            (tensor, |path, message| Error::InvalidCheckpoint {
                path,
                message,
            }),
            (destination, |path, message| Error::Destination {
                path,
                message,
            }),
            (data, |path, message| Error::InvalidData {
                path,
                line: Some(3),
                message,
            }),
        ] as [(core::Error, fn(String, String) -> Error); 4];
        for (error, expected) in cases {
            let message = error.to_string();
            assert_eq!(Error::from(error), expected(path(), message));
        }
    }

    #[test]
    fn a_remedy_is_part_of_the_message() {
        let error = core::Error::WithRemedy {
            error: Box::new(core::Error::Option {
                option: "top_p",
                problem: problem(),
            }),
            remedy: core::Remedy::Force,
        };
        let message = "top_p: the problem; allow its replacement, or choose another path";
        let expected = Error::InvalidOption {
            option: "top_p".into(),
            message: message.into(),
        };
        assert_eq!(Error::from(error), expected);
    }

    #[test]
    fn errors_without_a_path_keep_their_kind() {
        let option = core::Error::Option {
            option: "top_p",
            problem: problem(),
        };
        let dtype = core::Error::Dtype {
            dtype: "float7".into(),
            problem: problem(),
        };
        let prompt = core::Error::PromptTooLong {
            tokens: 600,
            context: 512,
        };
        let group = core::Error::Group { problem: problem() };
        let cases = [
            (option, |message| Error::InvalidOption {
                option: "top_p".into(),
                message,
            }),
            (dtype, |message| Error::InvalidOption {
                option: "dtype".into(),
                message,
            }),
            (prompt, |message| Error::PromptTooLong {
                tokens: 600,
                context: 512,
                message,
            }),
            (group, |message| Error::Distributed { message }),
            (core::Error::Cancelled, |message| Error::Cancelled {
                message,
            }),
        ] as [(core::Error, fn(String) -> Error); 5];
        for (error, expected) in cases {
            let message = error.to_string();
            assert_eq!(Error::from(error), expected(message));
        }
    }

    #[test]
    fn another_run_keeps_its_differences() {
        let text = |text: &str| text.to_owned();
        let error = core::Error::OtherRun {
            path: path(),
            differences: vec![core::train::RunDifference {
                option: text("batch_size"),
                expected: text("4"),
                found: text("2"),
            }],
        };
        let expected = RunDifference {
            option: text("batch_size"),
            expected: text("4"),
            found: text("2"),
        };
        assert!(
            matches!(Error::from(error), Error::OtherRun { path, differences, .. }
            if path == "out" && differences == [expected])
        );
    }
}
