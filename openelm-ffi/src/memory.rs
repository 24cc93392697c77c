//! Memory of the process, and pausing for the system's sake.

use std::time::Duration;

use openelm_core::{memory, runtime};

use crate::{error::Result, load::LoadOptions, worker};

/// Bytes that MLX takes in this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
pub struct MemoryStatistics {
    /// Of arrays in use.
    pub active: u64,
    /// Kept to be used again.
    pub cache: u64,
    /// The most that arrays took at one time.
    pub peak: u64,
    /// What the system says is left, where it does (Linux).
    pub available: Option<u64>,
}

/// As `openelm_MemoryEstimate`, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Record)]
#[allow(missing_docs, reason = "as openelm_MemoryEstimate")]
pub struct MemoryEstimate {
    pub weights: u64,
    pub kv_cache: u64,
    pub working: u64,
}

/// What the model in the folder `path` will take; no weight is read.
///
/// # Errors
/// What is wrong with the folder.
#[uniffi::export]
pub fn estimate_memory(
    path: String,
    options: LoadOptions,
    context: Option<u64>,
) -> Result<MemoryEstimate> {
    let context = context.map(|tokens| usize::try_from(tokens).unwrap_or(usize::MAX));
    let estimate = memory::MemoryEstimate::of(path, &options.try_into()?, context)?;
    Ok(MemoryEstimate {
        weights: estimate.weights,
        kv_cache: estimate.kv_cache,
        working: estimate.working,
    })
}

/// What MLX takes now.
///
/// # Errors
/// [`EngineError::Mlx`](crate::EngineError::Mlx).
#[uniffi::export]
pub fn memory_statistics() -> Result<MemoryStatistics> {
    Ok(MemoryStatistics {
        active: memory::active_bytes()? as u64,
        cache: memory::cache_bytes()? as u64,
        peak: memory::peak_bytes()? as u64,
        available: memory::available_bytes(),
    })
}

/// Begins to measure the peak anew.
///
/// # Errors
/// [`EngineError::Mlx`](crate::EngineError::Mlx).
#[uniffi::export]
pub fn reset_peak_memory() -> Result<()> {
    Ok(memory::reset_peak()?)
}

/// Sets how many bytes MLX may keep to use again; returns the old limit.
///
/// # Errors
/// [`EngineError::Mlx`](crate::EngineError::Mlx).
#[uniffi::export]
pub fn set_memory_cache_limit(bytes: u64) -> Result<u64> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(memory::set_cache_limit(bytes)? as u64)
}

/// Sets from how many bytes on MLX waits for memory to be freed; returns the old limit.
///
/// # Errors
/// [`EngineError::Mlx`](crate::EngineError::Mlx).
#[uniffi::export]
pub fn set_memory_limit(bytes: u64) -> Result<u64> {
    let bytes = usize::try_from(bytes).unwrap_or(usize::MAX);
    Ok(memory::set_memory_limit(bytes)? as u64)
}

/// Gives back what MLX keeps to use again.
///
/// # Errors
/// [`EngineError::Mlx`](crate::EngineError::Mlx).
#[uniffi::export]
pub fn clear_memory_cache() -> Result<()> {
    Ok(memory::clear_cache()?)
}

/// Holds everything before its next token, chunk of a prompt, tensor or step, and waits for what is
/// under way on the device, at most so long; whether all rests.
///
/// # Errors
/// None but a panic.
#[uniffi::export]
pub fn pause(wait_milliseconds: u64) -> Result<bool> {
    worker::gate().close();
    Ok(worker::gate().rest(Duration::from_millis(wait_milliseconds)))
}

/// Goes on after [`pause`].
///
/// # Errors
/// None but a panic.
#[uniffi::export]
pub fn resume() -> Result<()> {
    worker::gate().open();
    worker::wake();
    Ok(())
}

/// The version of MLX.
///
/// # Errors
/// [`EngineError::Mlx`](crate::EngineError::Mlx).
#[uniffi::export]
pub fn mlx_version() -> Result<String> {
    Ok(runtime::mlx_version()?)
}

/// Says where MLX' GPU kernels lie; see `openelm_core::runtime::set_metallib`.
///
/// # Errors
/// [`EngineError::MissingFile`](crate::EngineError::MissingFile), or
/// [`EngineError::Option`](crate::EngineError::Option) for those of another version.
#[uniffi::export]
pub fn set_metallib(path: String) -> Result<()> {
    Ok(runtime::set_metallib(path)?)
}
