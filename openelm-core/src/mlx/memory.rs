//! Memory: what MLX's arrays take, for the whole process, and what the system has left.

use crate::error::Result;

/// The most bytes that MLX's own arrays took at one time. On a CPU weights that need no cast are
/// mapped from their file and not counted.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn peak_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::peak_memory()?)
}

/// The most memory that this process had resident at one time, weights that are mapped from their
/// file included, by Linux' count; elsewhere as [`peak_bytes`].
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn peak_resident_bytes() -> Result<u64> {
    match kilobytes("/proc/self/status", "VmHWM:") {
        Some(bytes) => Ok(bytes),
        None => Ok(peak_bytes()? as u64),
    }
}

/// Bytes that MLX's arrays take now.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn active_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::active_memory()?)
}

/// Bytes that MLX keeps to use again, beyond [`active_bytes`].
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn cache_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::cache_memory()?)
}

/// Sets how many bytes MLX may keep to use again, and gives back what is more; returns the old
/// limit. MLX's own is nearly all of a GPU's memory: an app that shares its device with others
/// wants some tens of megabytes.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    Ok(mlx_rs::memory::set_cache_limit(bytes)?)
}

/// Sets the number of bytes from which on MLX waits for work to end before it takes more; returns
/// the old limit. It is a guide, not a wall: what no waiting can free is taken all the same.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn set_memory_limit(bytes: usize) -> Result<usize> {
    Ok(mlx_rs::memory::set_memory_limit(bytes)?)
}

/// Gives back all that MLX keeps to use again.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn clear_cache() -> Result<()> {
    Ok(mlx_rs::memory::clear_cache()?)
}

/// Begins to measure [`peak_bytes`] anew.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn reset_peak() -> Result<()> {
    Ok(mlx_rs::memory::reset_peak_memory()?)
}

/// Bytes that programs can still take without the system swapping, by Linux' own estimate; `None`
/// where it gives none.
pub fn available_bytes() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

fn kilobytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
