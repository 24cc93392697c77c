//! The one error of the boundary: the core's, field by field, and what only a boundary can meet.

use openelm_core::{Error, ErrorKind};

/// The result of a call.
pub(crate) type Result<T, E = EngineError> = std::result::Result<T, E>;

/// What can go wrong. `message` is the core's text, with all of the fields.
#[derive(Debug, Clone, PartialEq, thiserror::Error, uniffi::Error)]
#[error("{}", self.message())]
#[allow(
    missing_docs,
    reason = "the variants and fields are those of openelm_core::Error"
)]
pub enum EngineError {
    Io {
        path: String,
        message: String,
    },
    MissingFile {
        path: String,
        message: String,
    },
    Config {
        path: String,
        key: String,
        message: String,
    },
    Checkpoint {
        path: String,
        message: String,
    },
    MissingTensor {
        path: String,
        name: String,
        message: String,
    },
    UnexpectedTensor {
        path: String,
        name: String,
        message: String,
    },
    TensorShape {
        path: String,
        name: String,
        expected: Vec<u64>,
        found: Vec<u64>,
        message: String,
    },
    TensorDtype {
        path: String,
        name: String,
        found: String,
        message: String,
    },
    Dtype {
        dtype: String,
        message: String,
    },
    Tokenizer {
        path: String,
        message: String,
    },
    Data {
        path: String,
        line: Option<u64>,
        message: String,
    },
    Option {
        option: String,
        message: String,
    },
    PromptTooLong {
        tokens: u64,
        context: u64,
        message: String,
    },
    Adapter {
        path: String,
        message: String,
    },
    Diverged {
        iteration: u64,
        loss: f32,
        message: String,
    },
    Target {
        path: String,
        message: String,
    },
    Verification {
        path: String,
        message: String,
    },
    Cancelled {
        message: String,
    },
    /// MLX reported a failure, a fault of the GPU among them.
    Mlx {
        message: String,
    },
    /// Another process of the group failed or cannot be reached.
    Distributed {
        message: String,
    },
    /// An error of the core that has no variant here.
    Other {
        message: String,
    },
    /// A session is asked while it answers.
    Busy {
        message: String,
    },
    /// The model was unloaded.
    Unloaded {
        message: String,
    },
    /// The library panicked; the call is lost, the rest goes on.
    Panicked {
        message: String,
    },
    /// The worker is gone: nothing more can be done in this process.
    Unusable {
        message: String,
    },
    /// A run cannot be resumed: it was begun with other options or other data.
    OtherRun {
        path: String,
        message: String,
    },
}

impl EngineError {
    /// A session is asked while it answers.
    pub(crate) fn busy() -> Self {
        Self::Busy {
            message: "the session is answering already".into(),
        }
    }

    /// The model was unloaded.
    pub(crate) fn unloaded() -> Self {
        Self::Unloaded {
            message: "the model was unloaded".into(),
        }
    }

    /// The worker is gone.
    pub(crate) fn unusable() -> Self {
        Self::Unusable {
            message: "the thread that runs MLX has ended; start the app again".into(),
        }
    }

    /// What a panic left behind.
    pub(crate) fn panicked(payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload
            .downcast_ref::<&str>()
            .map(|text| (*text).to_owned());
        let text = text.or_else(|| payload.downcast_ref::<String>().cloned());
        let text = text.unwrap_or_else(|| "no reason given".into());
        Self::Panicked {
            message: format!("unexpected failure: {text}"),
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Io { message, .. }
            | Self::MissingFile { message, .. }
            | Self::Config { message, .. }
            | Self::Checkpoint { message, .. }
            | Self::MissingTensor { message, .. }
            | Self::UnexpectedTensor { message, .. }
            | Self::TensorShape { message, .. }
            | Self::TensorDtype { message, .. }
            | Self::Dtype { message, .. }
            | Self::Tokenizer { message, .. }
            | Self::Data { message, .. }
            | Self::Option { message, .. }
            | Self::PromptTooLong { message, .. }
            | Self::Adapter { message, .. }
            | Self::Diverged { message, .. }
            | Self::Target { message, .. }
            | Self::Verification { message, .. }
            | Self::Cancelled { message }
            | Self::Mlx { message }
            | Self::Distributed { message }
            | Self::Other { message }
            | Self::Busy { message }
            | Self::Unloaded { message }
            | Self::Panicked { message }
            | Self::Unusable { message }
            | Self::OtherRun { message, .. } => message,
        }
    }
}

impl From<Error> for EngineError {
    fn from(error: Error) -> Self {
        let message = error.to_string();
        let kind = error.kind();
        let path = error.path().map(|path| path.to_string_lossy().into_owned());
        let path = path.unwrap_or_default();
        let numbers = |shape: Vec<usize>| shape.into_iter().map(|n| n as u64).collect();
        match error {
            Error::Config { key, .. } => Self::Config { path, key, message },
            Error::MissingTensor { name, .. } => Self::MissingTensor {
                path,
                name,
                message,
            },
            Error::UnexpectedTensor { name, .. } => Self::UnexpectedTensor {
                path,
                name,
                message,
            },
            Error::TensorShape {
                name,
                expected,
                found,
                ..
            } => Self::TensorShape {
                path,
                name,
                expected: numbers(expected),
                found: numbers(found),
                message,
            },
            Error::TensorDtype { name, found, .. } => Self::TensorDtype {
                path,
                name,
                found,
                message,
            },
            Error::Dtype { dtype, .. } => Self::Dtype { dtype, message },
            Error::Data { line, .. } => Self::Data {
                path,
                line: line.map(|line| line as u64),
                message,
            },
            Error::Option { option, .. } => Self::Option {
                option: option.into(),
                message,
            },
            Error::PromptTooLong { tokens, context } => Self::PromptTooLong {
                tokens: tokens as u64,
                context: context as u64,
                message,
            },
            Error::Diverged { iteration, loss } => Self::Diverged {
                iteration,
                loss,
                message,
            },
            // The rest has no more fields. A kind added to the core must be added here.
            _ => match kind {
                ErrorKind::Io => Self::Io { path, message },
                ErrorKind::MissingFile => Self::MissingFile { path, message },
                ErrorKind::InvalidCheckpoint => Self::Checkpoint { path, message },
                ErrorKind::InvalidTokenizer => Self::Tokenizer { path, message },
                ErrorKind::InvalidAdapter => Self::Adapter { path, message },
                ErrorKind::Distributed => Self::Distributed { message },
                ErrorKind::Destination => Self::Target { path, message },
                ErrorKind::OtherRun => Self::OtherRun { path, message },
                ErrorKind::Verification => Self::Verification { path, message },
                ErrorKind::Cancelled => Self::Cancelled { message },
                ErrorKind::Device => Self::Mlx { message },
                // Their errors are matched above; a new one keeps its text.
                ErrorKind::InvalidConfig
                | ErrorKind::InvalidData
                | ErrorKind::InvalidOption
                | ErrorKind::PromptTooLong
                | ErrorKind::Diverged => Self::Other { message },
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use openelm_core::Error;

    use super::EngineError;

    #[test]
    fn errors_without_fields_of_their_own_keep_their_meaning() {
        let group = Error::Group {
            problem: "connection reset".into(),
        };
        assert!(
            matches!(group.into(), EngineError::Distributed { message } if
            message.contains("connection reset"))
        );
        let target = Error::Destination {
            path: "out".into(),
            problem: "it exists".into(),
        };
        assert!(matches!(target.into(), EngineError::Target { path, .. } if path == "out"));
        assert!(matches!(
            Error::Cancelled.into(),
            EngineError::Cancelled { .. }
        ));
    }
}
