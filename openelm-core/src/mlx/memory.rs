//! Memory of MLX's arrays, for the whole process, and the memory that the system has left.

use std::fmt::Display;

use crate::error::{Error, Result};

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
    match kilobytes("/proc/self/status", "VmHWM:") {
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
/// limit. MLX's default is nearly all of a GPU's memory; an app that shares its device should set
/// some tens of megabytes.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn set_cache_limit(bytes: usize) -> Result<usize> {
    Ok(mlx_rs::memory::set_cache_limit(bytes)?)
}

/// Sets the number of bytes above which MLX waits for running work before it allocates more;
/// returns the old limit. The limit is soft: MLX exceeds it if waiting frees nothing.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if MLX fails.
pub fn set_memory_limit(bytes: usize) -> Result<usize> {
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

/// Bytes that programs can allocate before the system swaps, as Linux estimates it; `None` on
/// systems without an estimate.
pub fn available_bytes() -> Option<u64> {
    kilobytes("/proc/meminfo", "MemAvailable:")
}

/// Refuses arrays of `needed` bytes that do not fit into the available memory. Their size follows
/// from the value `found` of `option`. There is no check on systems without an estimate.
pub(crate) fn check_fits(option: &'static str, found: impl Display, needed: u128) -> Result<()> {
    fits(option, found, needed, available_bytes())
}

fn fits(
    option: &'static str,
    found: impl Display,
    needed: u128,
    available: Option<u64>,
) -> Result<()> {
    match available {
        Some(available) if needed > u128::from(available) => {
            let [needed, available] = [needed as f64, available as f64].map(|bytes| bytes / 1e9);
            let problem = format!(
                "expected a size that fits into the {available:.1} GB of available memory, found \
                 {found}, which needs at least {needed:.1} GB"
            );
            Err(Error::option(option, problem))
        }
        _ => Ok(()),
    }
}

fn kilobytes(file: &str, key: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(key))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refuses_sizes_above_the_available_memory() {
        let check = |needed, available| fits("rank", 7, needed, available);
        assert!(check(1_000, Some(1_000)).is_ok());
        assert!(check(u128::MAX, None).is_ok());
        assert_eq!(
            check(3_000_000_000, Some(2_900_000_000))
                .unwrap_err()
                .to_string(),
            "rank: expected a size that fits into the 2.9 GB of available memory, found 7, which \
             needs at least 3.0 GB"
        );
    }
}
