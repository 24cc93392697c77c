//! Errors inside MLX's closures.

use mlx_rs::error::Exception;

use crate::error::Error;

/// Wraps an error of this crate in the error type of MLX's closures.
pub(crate) fn into_exception(error: Error) -> Exception {
    match error {
        Error::Mlx(exception) => exception,
        other => Exception::custom(other.to_string()),
    }
}
