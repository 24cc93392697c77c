//! Hashes of files.

use openelm_core::output;

use crate::error::Result;

/// The SHA-256 of the file `path`, in lower-case hexadecimal digits.
///
/// # Errors
/// [`Error::Io`](crate::Error::Io).
#[uniffi::export]
pub fn sha256(path: String) -> Result<String> {
    Ok(output::sha256(path)?)
}
