//! Errors inside of MLX's closures.

use mlx_rs::error::Exception;

use crate::error::Error;

/// An error of ours as MLX's closures want it.
pub(super) fn into_exception(error: Error) -> Exception {
    match error {
        Error::Mlx(exception) => exception,
        other => Exception::custom(other.to_string()),
    }
}
