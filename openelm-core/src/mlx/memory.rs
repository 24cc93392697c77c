//! Memory of MLX's arrays, for the whole process.

use super::{cache_policy, proc_file};
use crate::error::Result;

pub use super::available::available_bytes;
pub(crate) use super::available::{allocatable_bytes, check_fits};

/// Peak size of MLX's own arrays, in bytes. On a CPU, weights that need no cast are mapped from
/// their file and not counted.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn peak_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::peak_memory()?)
}

/// Peak resident memory of this process in bytes, mapped weights included, as Linux counts it;
/// on other systems as [`peak_bytes`].
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn peak_resident_bytes() -> Result<u64> {
    match proc_file::bytes("/proc/self/status", "VmHWM:") {
        Some(bytes) => Ok(bytes),
        None => Ok(peak_bytes()? as u64),
    }
}

/// Current size of MLX's arrays, in bytes.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn active_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::active_memory()?)
}

/// Bytes that MLX caches for reuse, beyond [`active_bytes`].
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn cache_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::cache_memory()?)
}

/// Sets the number of bytes that MLX may cache for reuse, and frees the excess; returns the old
/// limit. Without this call, the limit on a GPU depends on the work: it is small while tokens are
/// generated, and larger while a prompt is read and while training. The limit of this call holds
/// for all work.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    cache_policy::keep_cache_limit_of_user();
    Ok(mlx_rs::memory::set_cache_limit(bytes)?)
}

/// Sets the number of bytes above which MLX waits for running work before it allocates more;
/// returns the old limit. The limit is soft: MLX exceeds it if waiting frees nothing. Without this
/// call, the limit on iOS is the memory that the system allows the app to allocate.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn set_memory_limit(bytes: usize) -> Result<usize> {
    cache_policy::keep_memory_limit_of_user();
    Ok(mlx_rs::memory::set_memory_limit(bytes)?)
}

/// Frees all memory that MLX caches for reuse.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn clear_cache() -> Result<()> {
    Ok(mlx_rs::memory::clear_cache()?)
}

/// Resets [`peak_bytes`].
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn reset_peak() -> Result<()> {
    Ok(mlx_rs::memory::reset_peak_memory()?)
}
