//! Memory that macOS keeps wired for the GPU during a generation or a training run.
//!
//! Without a wired limit, macOS may page weights out between two command buffers, and in again. As
//! in mlx-lm, the limit is the recommended working set of the GPU, and the limit before is put back
//! when all work has ended. iOS counts wired memory against the app, so it has no limit there.

use std::sync::{Mutex, PoisonError};

use super::{
    memory_trace::{self, MemoryAction},
    runtime,
};

/// The pieces of work in progress, and the limit before the first.
#[derive(Debug, Default)]
struct Wired {
    works: usize,
    before: Option<usize>,
}

static WIRED: Mutex<Wired> = Mutex::new(Wired {
    works: 0,
    before: None,
});

/// Wires the GPU's memory if this is the first work.
pub(super) fn begin() {
    let mut wired = WIRED.lock().unwrap_or_else(PoisonError::into_inner);
    wired.begin(working_set(), set_limit);
}

/// Puts the limit back if no work remains, once the device has finished.
pub(super) fn end() {
    let mut wired = WIRED.lock().unwrap_or_else(PoisonError::into_inner);
    wired.end(|bytes| {
        // The limit must not change during an evaluation; a failure of the work is reported by it.
        let _ = runtime::synchronize();
        set_limit(bytes)
    });
}

/// The recommended working set of the GPU, in bytes; `None` on systems that do not wire memory.
pub(super) fn working_set() -> Option<usize> {
    memory_trace::assumptions()
        .working_set
        .or_else(system::working_set)
}

impl Wired {
    fn begin(&mut self, limit: Option<usize>, set: impl FnOnce(usize) -> Option<usize>) {
        if self.works == 0
            && let Some(limit) = limit
        {
            self.before = set(limit);
        }
        self.works += 1;
    }

    fn end(&mut self, set: impl FnOnce(usize) -> Option<usize>) {
        self.works = self.works.saturating_sub(1);
        if self.works == 0
            && let Some(before) = self.before.take()
        {
            set(before);
        }
    }
}

/// Sets the limit and returns the one before; `None` if MLX refuses it, as before macOS 15. The
/// work then runs without.
fn set_limit(bytes: usize) -> Option<usize> {
    memory_trace::record(MemoryAction::WiredLimit(bytes));
    system::set_limit(bytes)
}

#[cfg(target_os = "macos")]
mod system {
    use crate::mlx::ffi;

    pub(super) fn working_set() -> Option<usize> {
        ffi::gpu_size(ffi::WORKING_SET)
    }

    pub(super) fn set_limit(bytes: usize) -> Option<usize> {
        mlx_rs::memory::set_wired_limit(bytes).ok()
    }
}

#[cfg(not(target_os = "macos"))]
mod system {
    pub(super) fn working_set() -> Option<usize> {
        None
    }

    /// Only a test has a limit here.
    pub(super) fn set_limit(_: usize) -> Option<usize> {
        Some(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limit_holds_from_the_first_work_to_the_end_of_the_last() {
        let mut wired = Wired::default();
        let mut set = Vec::new();
        wired.begin(Some(100), |bytes| {
            set.push(bytes);
            Some(7)
        });
        let unexpected = |_| -> Option<usize> { panic!("the limit is set") };
        wired.begin(Some(100), unexpected);
        wired.end(unexpected);
        wired.end(|bytes| {
            set.push(bytes);
            Some(100)
        });
        assert_eq!(set, [100, 7]);
        // A system without a limit, and one that refuses it.
        for limit in [None, Some(100)] {
            wired.begin(limit, |_| None);
            wired.end(unexpected);
        }
    }
}
