//! Memory: what MLX's arrays take, for the whole process, and what the system has left.

use crate::error::Result;

/// The most bytes that MLX's own arrays took at one time. On a CPU weights that need no cast are
/// mapped from their file and not counted.
///
/// # Errors
/// [`crate::Error::Mlx`] if MLX fails.
pub fn peak_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::peak_memory()?)
}

/// The most memory that this process had resident at one time, weights that are mapped from their
/// file included, by Linux' count; elsewhere as [`peak_bytes`].
///
/// # Errors
/// [`crate::Error::Mlx`] if MLX fails.
pub fn peak_resident_bytes() -> Result<u64> {
    match kilobytes("/proc/self/status", "VmHWM:") {
        Some(bytes) => Ok(bytes),
        None => Ok(peak_bytes()? as u64),
    }
}

/// Bytes that MLX's arrays take now.
///
/// # Errors
/// [`crate::Error::Mlx`] if MLX fails.
pub fn active_bytes() -> Result<usize> {
    Ok(mlx_rs::memory::active_memory()?)
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
