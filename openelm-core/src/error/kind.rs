//! The classes of errors.

/// The class of an [`Error`](crate::Error), for an app that chooses what to do next.
///
/// Every error has one kind. The enum is exhaustive: a new kind is a breaking change, so that no
/// app maps it to another meaning without notice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// A file or folder could not be read or written.
    Io,
    /// A file of a model, adapter or run is missing.
    MissingFile,
    /// A model configuration is malformed or not supported.
    InvalidConfig,
    /// A weight file is malformed, does not fit the configuration, or holds numbers that are not
    /// finite.
    InvalidCheckpoint,
    /// A tokenizer is malformed or does not fit the model.
    InvalidTokenizer,
    /// A file of training data is malformed.
    InvalidData,
    /// An adapter is malformed or does not fit the model.
    InvalidAdapter,
    /// An option is out of range or cannot be used with this model or device.
    InvalidOption,
    /// The prompt does not fit the model's context.
    PromptTooLong,
    /// The training loss is not a finite number.
    Diverged,
    /// Another process of the distributed group failed or cannot be reached.
    Distributed,
    /// An output file or folder cannot be made at the given path.
    Destination,
    /// The saved run to resume has other options or data.
    OtherRun,
    /// A written model differs from its source.
    Verification,
    /// The caller cancelled the call.
    Cancelled,
    /// MLX or the device reported a failure, or the memory does not suffice.
    Device,
    /// The conversation is already answering.
    Busy,
    /// The model was unloaded.
    Unloaded,
    /// The library panicked. The call failed; later calls work.
    Unexpected,
    /// The engine's thread has ended. No later call can succeed.
    Unusable,
}
