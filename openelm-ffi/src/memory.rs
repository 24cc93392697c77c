//! MLX's memory, pausing, and MLX's version and kernels.

use std::time::Duration;

use openelm_core::{memory, runtime};

use crate::{count::count, engine::engine, error::Result, load::LoadOptions};

/// MLX's memory in this process, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct MemoryStatistics {
    /// Arrays in use.
    pub active: u64,
    /// Buffers kept for reuse.
    pub cache: u64,
    /// Peak of `active`.
    pub peak: u64,
    /// Memory that the system reports as available; on macOS, what is left of the GPU's working set.
    pub available: Option<u64>,
}

/// Mirrors `openelm_core::memory::MemoryEstimate`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_core::memory::MemoryEstimate")]
pub struct MemoryEstimate {
    pub weights: u64,
    pub kv_cache: u64,
    pub working: u64,
}

/// Estimates the memory of the model in the folder `path`, without reading weights.
///
/// # Errors
/// Errors of the folder's files.
#[uniffi::export]
pub fn estimate_memory(
    path: String,
    options: LoadOptions,
    context: Option<u64>,
) -> Result<MemoryEstimate> {
    let context = context.map(count);
    let estimate = memory::MemoryEstimate::of(path, &options.try_into()?, context)?;
    Ok(MemoryEstimate {
        weights: estimate.weights,
        kv_cache: estimate.kv_cache,
        working: estimate.working,
    })
}

/// MLX's current memory use.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
#[uniffi::export]
pub fn memory_statistics() -> Result<MemoryStatistics> {
    Ok(MemoryStatistics {
        active: memory::active_bytes()? as u64,
        cache: memory::cache_bytes()? as u64,
        peak: memory::peak_bytes()? as u64,
        available: memory::available_bytes(),
    })
}

/// Resets the peak memory.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
#[uniffi::export]
pub fn reset_peak_memory() -> Result<()> {
    Ok(memory::reset_peak()?)
}

/// Sets the limit of the buffer cache, in bytes. Returns the old limit.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
#[uniffi::export]
pub fn set_memory_cache_limit(bytes: u64) -> Result<u64> {
    Ok(memory::set_cache_limit(count(bytes))? as u64)
}

/// Sets the limit above which MLX waits for memory to be freed, in bytes. Returns the old limit.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
#[uniffi::export]
pub fn set_memory_limit(bytes: u64) -> Result<u64> {
    Ok(memory::set_memory_limit(count(bytes))? as u64)
}

/// Frees the buffers in the cache, and the keys and values that are kept for later requests.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
#[uniffi::export]
pub fn clear_memory_cache() -> Result<()> {
    engine()?.clear_caches()?;
    Ok(memory::clear_cache()?)
}

/// Pauses all work before its next token, prompt chunk, training batch or tensor, and blocks the
/// caller for up to `wait_milliseconds` until the device is idle. Returns true if no work is running.
/// Each call needs its own [`resume`].
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn pause(wait_milliseconds: u64) -> Result<bool> {
    Ok(engine()?.pause(Duration::from_millis(wait_milliseconds)))
}

/// Like [`pause`], without blocking the calling thread.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub async fn pause_async(wait_milliseconds: u64) -> Result<bool> {
    let wait = Duration::from_millis(wait_milliseconds);
    Ok(engine()?.pause_async(wait).await)
}

/// Takes a [`pause`] back; work continues after the last one.
///
/// # Errors
/// Only after a panic.
#[uniffi::export]
pub fn resume() -> Result<()> {
    engine()?.resume();
    Ok(())
}

/// The version of MLX.
///
/// # Errors
/// [`Error::Device`](crate::Error::Device).
#[uniffi::export]
pub fn mlx_version() -> Result<String> {
    Ok(runtime::mlx_version()?)
}

/// Sets the path of MLX's GPU kernels; see `openelm_core::runtime::set_metallib`.
///
/// # Errors
/// [`Error::MissingFile`](crate::Error::MissingFile), or
/// [`Error::InvalidOption`](crate::Error::InvalidOption) for kernels of another version.
#[uniffi::export]
pub fn set_metallib(path: String) -> Result<()> {
    Ok(runtime::set_metallib(path)?)
}
