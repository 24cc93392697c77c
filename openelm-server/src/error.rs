//! Errors of the server itself. Errors of a request are responses, see `api_error`.

use std::{io, path::PathBuf};

/// A result of the server.
pub type Result<T> = std::result::Result<T, Error>;

/// An error that prevents or ends the service.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An option is out of range.
    #[error("{option}: {problem}")]
    Option {
        /// Name of the option, in snake_case.
        option: &'static str,
        /// The range and the value found.
        problem: String,
    },
    /// The file of keys cannot be read, or is malformed.
    #[error("{path}: {problem}", path = path.display())]
    ApiKeys {
        /// The file.
        path: PathBuf,
        /// The problem.
        problem: String,
    },
    /// The address cannot be used.
    #[error("{option}: {address}: {source}")]
    Listen {
        /// Name of the option at fault: `host`, `port` or `unix_socket`.
        option: &'static str,
        /// The host and port, or the path of the socket.
        address: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The system refuses threads or timers.
    #[error("cannot start the server: {0}")]
    Runtime(io::Error),
}
