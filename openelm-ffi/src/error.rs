//! The one error of the boundary: the core's, field by field, and what only a boundary can meet.

use openelm_core as core;

/// The result of a call.
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

/// What can go wrong. `message` is the core's text, with all of the fields.
#[derive(Debug, Clone, PartialEq, thiserror::Error, uniffi::Error)]
#[error("{}", self.message())]
#[allow(
    missing_docs,
    reason = "the variants and fields are those of openelm_core::Error"
)]
pub enum Error {
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
}

impl Error {
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
            | Self::Busy { message }
            | Self::Unloaded { message }
            | Self::Panicked { message }
            | Self::Unusable { message } => message,
        }
    }
}

impl From<core::Error> for Error {
    fn from(error: core::Error) -> Self {
        let message = error.to_string();
        let text = |path: std::path::PathBuf| path.to_string_lossy().into_owned();
        let numbers = |shape: Vec<usize>| shape.into_iter().map(|n| n as u64).collect();
        match error {
            core::Error::Io { path, .. } => Self::Io {
                path: text(path),
                message,
            },
            core::Error::MissingFile { path, .. } => Self::MissingFile {
                path: text(path),
                message,
            },
            core::Error::Config { path, key, .. } => Self::Config {
                path: text(path),
                key,
                message,
            },
            core::Error::Checkpoint { path, .. } => Self::Checkpoint {
                path: text(path),
                message,
            },
            core::Error::MissingTensor { path, name, .. } => Self::MissingTensor {
                path: text(path),
                name,
                message,
            },
            core::Error::UnexpectedTensor { path, name } => Self::UnexpectedTensor {
                path: text(path),
                name,
                message,
            },
            core::Error::TensorShape {
                path,
                name,
                expected,
                found,
            } => Self::TensorShape {
                path: text(path),
                name,
                expected: numbers(expected),
                found: numbers(found),
                message,
            },
            core::Error::TensorDtype { path, name, found } => Self::TensorDtype {
                path: text(path),
                name,
                found,
                message,
            },
            core::Error::Dtype { dtype, .. } => Self::Dtype { dtype, message },
            core::Error::Tokenizer { path, .. } => Self::Tokenizer {
                path: text(path),
                message,
            },
            core::Error::Data { path, line, .. } => Self::Data {
                path: text(path),
                line: line.map(|line| line as u64),
                message,
            },
            core::Error::Option { option, .. } => Self::Option {
                option: option.into(),
                message,
            },
            core::Error::PromptTooLong { tokens, context } => Self::PromptTooLong {
                tokens: tokens as u64,
                context: context as u64,
                message,
            },
            core::Error::Adapter { path, .. } => Self::Adapter {
                path: text(path),
                message,
            },
            core::Error::Diverged { iteration, loss } => Self::Diverged {
                iteration,
                loss,
                message,
            },
            core::Error::Target { path, .. } => Self::Target {
                path: text(path),
                message,
            },
            core::Error::Verification { path, .. } => Self::Verification {
                path: text(path),
                message,
            },
            core::Error::Cancelled => Self::Cancelled { message },
            // MLX's own, and what later versions of the core add.
            _ => Self::Mlx { message },
        }
    }
}
