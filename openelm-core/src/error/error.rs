//! The error type of the crate.

use std::{
    any::Any,
    fmt::Display,
    path::{Path, PathBuf},
};

use super::{kind::ErrorKind, remedy::Remedy, run_difference::RunDifference};

/// The result of a fallible call in this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The crate's error; every message names the file, key, tensor or option at fault. Its text is one
/// safe line, see [`one_line`](crate::one_line).
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or folder could not be read or written.
    Io {
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
    /// A file that the model needs is missing.
    MissingFile {
        /// The expected path.
        path: PathBuf,
        /// The required file, and its source.
        problem: String,
    },
    /// A model configuration is malformed, contradictory or not supported.
    Config {
        /// The configuration file, or `config` for one made in code.
        path: PathBuf,
        /// The JSON key at fault.
        key: String,
        /// The expected and the found value.
        problem: String,
    },
    /// A weight file is malformed.
    Checkpoint {
        /// The weight file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A tensor that the configuration requires is in no weight file.
    MissingTensor {
        /// The folder of the model.
        path: PathBuf,
        /// Checkpoint name of the tensor.
        name: String,
        /// Shape by the configuration.
        shape: Vec<usize>,
    },
    /// A weight file holds a tensor that the configuration does not have.
    UnexpectedTensor {
        /// The weight file.
        path: PathBuf,
        /// Checkpoint name of the tensor.
        name: String,
    },
    /// The shape of a tensor differs from the configuration.
    TensorShape {
        /// The weight file.
        path: PathBuf,
        /// Checkpoint name of the tensor.
        name: String,
        /// Shape by the configuration.
        expected: Vec<usize>,
        /// Shape in the file.
        found: Vec<usize>,
    },
    /// A tensor is stored in a type that this model cannot use.
    TensorDtype {
        /// The weight file.
        path: PathBuf,
        /// Checkpoint name of the tensor.
        name: String,
        /// Type in the file.
        found: String,
    },
    /// A data type cannot be used for this model or on this device.
    Dtype {
        /// The requested type.
        dtype: String,
        /// The reason, and the types that work.
        problem: String,
    },
    /// A tokenizer file is malformed or does not fit the model.
    Tokenizer {
        /// The tokenizer file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// A file of training data is malformed, empty or of the wrong kind.
    Data {
        /// The data file or folder.
        path: PathBuf,
        /// The line at fault, from 1; none if it is the whole file.
        line: Option<usize>,
        /// The problem, with the key.
        problem: String,
    },
    /// An option is out of range.
    Option {
        /// Name of the option: the name of the field or parameter, in snake_case.
        option: &'static str,
        /// The range and the value found.
        problem: String,
    },
    /// The prompt does not fit the model's context.
    PromptTooLong {
        /// Length of the prompt with BOS, in tokens.
        tokens: usize,
        /// Length of the context, in tokens.
        context: usize,
    },
    /// An adapter is malformed, or does not fit the model.
    Adapter {
        /// The adapter's file or folder, or its name.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The network computes NaN or infinity: weights are malformed.
    NonFinite {
        /// The first part of the network with such an output.
        place: String,
        /// The tensor at fault, if there is one.
        problem: String,
    },
    /// The training loss is not a finite number: the learning rate is too high.
    Diverged {
        /// The iteration.
        iteration: u64,
        /// The loss.
        loss: f32,
    },
    /// MLX failed in an earlier step of the trainer, whose parameters are no longer known.
    FailedTrainer {
        /// The iteration of the failed step.
        iteration: u64,
    },
    /// Another process of the training group failed or cannot be reached.
    Group {
        /// The failure of the connection.
        problem: String,
    },
    /// An output path exists, is in use, or cannot be written.
    Destination {
        /// The file or folder to be made.
        path: PathBuf,
        /// The obstacle, and a remedy.
        problem: String,
    },
    /// A training run cannot be resumed with other options or other data.
    OtherRun {
        /// The state of the run.
        path: PathBuf,
        /// The options that differ, at least one.
        differences: Vec<RunDifference>,
    },
    /// A written model differs from its source.
    Verification {
        /// The file or folder to be made.
        path: PathBuf,
        /// The tensor, the expected and the found value.
        problem: String,
    },
    /// An error with an action that resolves it. Kind and path are the inner error's.
    WithRemedy {
        /// The error.
        error: Box<Self>,
        /// The action.
        remedy: Remedy,
    },
    /// A model or a training run does not fit into the memory that the system has left.
    Memory {
        /// The part that does not fit.
        part: String,
        /// Bytes that it needs, at least.
        needed: u64,
        /// Bytes that this process can allocate.
        available: u64,
    },
    /// A structured text is incomplete at its limit, which
    /// [`AtLimit`](crate::constraint::AtLimit) forbids.
    Incomplete {
        /// Number of tokens of the text.
        tokens: usize,
    },
    /// The caller cancelled the call.
    Cancelled,
    /// The conversation is already answering.
    Busy,
    /// The model was unloaded.
    Unloaded,
    /// Work on the engine's thread panicked. The call failed; later calls work.
    Unexpected {
        /// The panic's message.
        problem: String,
    },
    /// The engine's thread has ended. No later call can succeed.
    Unusable,
    /// MLX reported a failure.
    Mlx(#[from] mlx_rs::error::Exception),
    /// A result could not be read from MLX.
    Read(#[from] mlx_rs::error::ConversionError),
}

impl Error {
    /// The class of the error.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Io { .. } => ErrorKind::Io,
            Self::MissingFile { .. } => ErrorKind::MissingFile,
            Self::Config { .. } => ErrorKind::InvalidConfig,
            Self::Checkpoint { .. }
            | Self::MissingTensor { .. }
            | Self::UnexpectedTensor { .. }
            | Self::TensorShape { .. }
            | Self::TensorDtype { .. }
            | Self::NonFinite { .. } => ErrorKind::InvalidCheckpoint,
            Self::Tokenizer { .. } => ErrorKind::InvalidTokenizer,
            Self::Data { .. } => ErrorKind::InvalidData,
            Self::Adapter { .. } => ErrorKind::InvalidAdapter,
            Self::Dtype { .. } | Self::Option { .. } | Self::Incomplete { .. } => {
                ErrorKind::InvalidOption
            }
            Self::PromptTooLong { .. } => ErrorKind::PromptTooLong,
            Self::Diverged { .. } => ErrorKind::Diverged,
            Self::Group { .. } => ErrorKind::Distributed,
            Self::Destination { .. } => ErrorKind::Destination,
            Self::OtherRun { .. } => ErrorKind::OtherRun,
            Self::Verification { .. } => ErrorKind::Verification,
            Self::WithRemedy { error, .. } => error.kind(),
            Self::Cancelled => ErrorKind::Cancelled,
            Self::Busy => ErrorKind::Busy,
            Self::Unloaded => ErrorKind::Unloaded,
            Self::Unexpected { .. } => ErrorKind::Unexpected,
            Self::Unusable => ErrorKind::Unusable,
            Self::FailedTrainer { .. } | Self::Memory { .. } | Self::Mlx(_) | Self::Read(_) => {
                ErrorKind::Device
            }
        }
    }

    /// The file or folder at fault; `None` for an error that concerns none.
    pub fn path(&self) -> Option<&Path> {
        match self {
            Self::Io { path, .. }
            | Self::MissingFile { path, .. }
            | Self::Config { path, .. }
            | Self::Checkpoint { path, .. }
            | Self::MissingTensor { path, .. }
            | Self::UnexpectedTensor { path, .. }
            | Self::TensorShape { path, .. }
            | Self::TensorDtype { path, .. }
            | Self::Tokenizer { path, .. }
            | Self::Data { path, .. }
            | Self::Adapter { path, .. }
            | Self::Destination { path, .. }
            | Self::OtherRun { path, .. }
            | Self::Verification { path, .. } => Some(path),
            Self::WithRemedy { error, .. } => error.path(),
            Self::Dtype { .. }
            | Self::Option { .. }
            | Self::PromptTooLong { .. }
            | Self::NonFinite { .. }
            | Self::Diverged { .. }
            | Self::FailedTrainer { .. }
            | Self::Group { .. }
            | Self::Memory { .. }
            | Self::Incomplete { .. }
            | Self::Cancelled
            | Self::Busy
            | Self::Unloaded
            | Self::Unexpected { .. }
            | Self::Unusable
            | Self::Mlx(_)
            | Self::Read(_) => None,
        }
    }

    /// An option out of range: `option` is its name in the API, `problem` the range and the value.
    pub(crate) fn option(option: &'static str, problem: impl Into<String>) -> Self {
        let problem = problem.into();
        Self::Option { option, problem }
    }

    /// An option below its minimum.
    pub(crate) fn at_least(
        option: &'static str,
        minimum: impl Display,
        found: impl Display,
    ) -> Self {
        Self::option(
            option,
            format!("expected at least {minimum}, found {found}"),
        )
    }

    /// A panic with its payload.
    pub(crate) fn panicked(payload: &(dyn Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        Self::Unexpected {
            problem: text.unwrap_or_else(|| "no reason given".into()),
        }
    }

    /// A prompt without text or tokens.
    pub(crate) fn empty_prompt() -> Self {
        Self::option("prompt", "it is empty")
    }

    /// A missing file: the required file, and its source.
    pub(crate) fn missing_file(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        let (path, problem) = (path.into(), problem.into());
        Self::MissingFile { path, problem }
    }

    /// A problem of the configuration at `path`, with the JSON key.
    pub(crate) fn config(
        path: impl Into<PathBuf>,
        key: impl Into<String>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Config {
            path: path.into(),
            key: key.into(),
            problem: problem.into(),
        }
    }

    /// A problem of the weight file at `path`.
    pub(crate) fn checkpoint(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        let (path, problem) = (path.into(), problem.into());
        Self::Checkpoint { path, problem }
    }

    /// A problem of the tokenizer file at `path`.
    pub(crate) fn tokenizer(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        let (path, problem) = (path.into(), problem.into());
        Self::Tokenizer { path, problem }
    }

    /// A problem of the data file at `path`, with the `line` from 1 if known.
    pub(crate) fn data(
        path: impl Into<PathBuf>,
        line: impl Into<Option<usize>>,
        problem: impl Into<String>,
    ) -> Self {
        Self::Data {
            path: path.into(),
            line: line.into(),
            problem: problem.into(),
        }
    }

    /// An obstacle to making `path`, and a remedy.
    pub(crate) fn destination(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        let (path, problem) = (path.into(), problem.into());
        Self::Destination { path, problem }
    }

    /// A problem of the adapter at `path`.
    pub(crate) fn adapter(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        let (path, problem) = (path.into(), problem.into());
        Self::Adapter { path, problem }
    }

    /// The error with an action that resolves it.
    pub(crate) fn with_remedy(self, remedy: Remedy) -> Self {
        let error = Box::new(self);
        Self::WithRemedy { error, remedy }
    }

    /// Wraps an I/O failure with its path.
    pub(crate) fn io(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { path, source }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remedy_changes_neither_kind_nor_path() {
        let error = Error::destination("out", "exists").with_remedy(Remedy::Force);
        assert_eq!(error.kind(), ErrorKind::Destination);
        assert_eq!(error.path(), Some("out".as_ref()));
        let text = "out: exists; allow its replacement, or choose another path";
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn an_error_has_its_kind_and_path() {
        let shape = Error::TensorShape {
            path: "model.safetensors".into(),
            name: "norm".into(),
            expected: vec![2],
            found: vec![3],
        };
        assert_eq!(shape.kind(), ErrorKind::InvalidCheckpoint);
        assert_eq!(shape.path(), Some("model.safetensors".as_ref()));
        let group = Error::Group {
            problem: "connection reset".into(),
        };
        assert_eq!(group.kind(), ErrorKind::Distributed);
        assert_eq!(group.path(), None);
    }
}
