//! Memory: what MLX's arrays take, for the whole process, and what the system has left.

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

/// Bytes that programs can still take without the system swapping, by Linux' own estimate; `None`
/// where it gives none.
pub fn available_bytes() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}
