//! The memory that the system has left for this process.

use std::{cell::Cell, fmt::Display, marker::PhantomData};

use crate::error::{Error, Result};

/// Bytes that this process can allocate before the system swaps or ends it; `None` on a system
/// without an estimate:
///
/// - Linux: the available memory of the system, or less if a control group limits the process;
/// - macOS: the recommended working set of the GPU less the memory that MLX uses;
/// - iOS: the memory that the system allows the app to allocate.
pub fn available_bytes() -> Option<u64> {
    ASSUMED.get().unwrap_or_else(system::available)
}

/// Like [`available_bytes`], with the free swap space of Linux: what does not fit cannot be
/// allocated at all.
pub(crate) fn allocatable_bytes() -> Option<u64> {
    match ASSUMED.get() {
        Some(assumed) => assumed,
        None => system::available().map(|bytes| bytes.saturating_add(system::free_swap())),
    }
}

/// Assumes on this thread that `available` bytes can be allocated, until the value is dropped: for
/// tests.
#[must_use = "the assumption ends when the value is dropped"]
pub fn assume_available(available: Option<u64>) -> AssumedMemory {
    AssumedMemory {
        previous: ASSUMED.replace(Some(available)),
        of_thread: PhantomData,
    }
}

/// An assumption of [`assume_available`] for the thread that made it.
#[derive(Debug)]
pub struct AssumedMemory {
    previous: Option<Option<u64>>,
    /// The value must be dropped by its thread.
    of_thread: PhantomData<*const ()>,
}

impl Drop for AssumedMemory {
    fn drop(&mut self) {
        ASSUMED.set(self.previous);
    }
}

thread_local! {
    static ASSUMED: Cell<Option<Option<u64>>> = const { Cell::new(None) };
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

#[cfg(target_os = "linux")]
mod system {
    use std::path::Path;

    use crate::mlx::{control_group, proc_file};

    pub(super) fn available() -> Option<u64> {
        let of_system = proc_file::bytes("/proc/meminfo", "MemAvailable:");
        let of_group = control_group::available(Path::new("/"));
        of_system.into_iter().chain(of_group).min()
    }

    pub(super) fn free_swap() -> u64 {
        proc_file::bytes("/proc/meminfo", "SwapFree:").unwrap_or(0)
    }
}

#[cfg(target_os = "macos")]
mod system {
    use crate::mlx::{Device, ffi, memory};

    pub(super) fn available() -> Option<u64> {
        if Device::current().ok()? != Device::Gpu {
            return None;
        }
        let working_set = ffi::gpu_size(ffi::WORKING_SET)?;
        let left = working_set.saturating_sub(memory::active_bytes().ok()?);
        Some(left as u64)
    }

    pub(super) fn free_swap() -> u64 {
        0
    }
}

#[cfg(target_os = "ios")]
mod system {
    use crate::mlx::ffi;

    pub(super) fn available() -> Option<u64> {
        // 0 where there is no limit, as in the simulator.
        Some(ffi::process_available_memory() as u64).filter(|bytes| *bytes > 0)
    }

    pub(super) fn free_swap() -> u64 {
        0
    }
}

#[cfg(not(any(target_os = "linux", target_os = "macos", target_os = "ios")))]
mod system {
    pub(super) fn available() -> Option<u64> {
        None
    }

    pub(super) fn free_swap() -> u64 {
        0
    }
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

    #[test]
    fn an_assumption_holds_until_it_is_dropped() {
        let system = available_bytes().is_some();
        {
            let _assumed = assume_available(Some(5));
            assert_eq!((available_bytes(), allocatable_bytes()), (Some(5), Some(5)));
            let _none = assume_available(None);
            assert_eq!((available_bytes(), allocatable_bytes()), (None, None));
        }
        assert_eq!(available_bytes().is_some(), system);
        #[cfg(target_os = "linux")]
        assert!(allocatable_bytes() > Some(1 << 20));
    }
}
