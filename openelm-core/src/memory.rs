//! MLX's memory, for the whole process.

use crate::error::Result;

/// The most bytes that MLX's arrays took at one time.
///
/// # Errors
/// [`crate::Error::Mlx`] if MLX fails.
pub fn peak_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::peak_memory()?)
}

/// Bytes that MLX's arrays take now.
///
/// # Errors
/// [`crate::Error::Mlx`] if MLX fails.
pub fn active_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::active_memory()?)
}
