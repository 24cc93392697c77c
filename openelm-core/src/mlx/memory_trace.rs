//! A record of the changes of MLX's memory settings on a thread, for tests.

use std::{cell::RefCell, marker::PhantomData};

/// A change of MLX's memory settings.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MemoryAction {
    /// The cache is cleared.
    ClearCache,
    /// The limit of the cache, in bytes.
    CacheLimit(usize),
    /// The limit of arrays and cache, in bytes.
    MemoryLimit(usize),
    /// The limit of wired memory, in bytes.
    WiredLimit(usize),
}

/// Properties of a device that a test assumes on its thread.
#[derive(Debug, Clone, Copy, Default)]
pub struct Assumptions {
    /// The system ends apps that use much memory, as iOS does.
    pub phone: bool,
    /// The recommended working set of the GPU, in bytes: memory is wired.
    pub working_set: Option<usize>,
    /// Bytes in the cache above which a step of training clears it.
    pub training_threshold: Option<usize>,
}

/// Records the actions of this thread until it is dropped.
#[derive(Debug)]
pub struct MemoryTrace {
    of_thread: PhantomData<*const ()>,
}

impl MemoryTrace {
    /// Begins a record with `assumptions`.
    pub fn start(assumptions: Assumptions) -> Self {
        RECORD.replace(Some((assumptions, Vec::new())));
        Self {
            of_thread: PhantomData,
        }
    }

    /// The actions since the last call.
    pub fn actions(&self) -> Vec<MemoryAction> {
        RECORD.with_borrow_mut(|record| {
            let actions = record.as_mut().map(|(_, actions)| std::mem::take(actions));
            actions.unwrap_or_default()
        })
    }
}

impl Drop for MemoryTrace {
    fn drop(&mut self) {
        RECORD.replace(None);
    }
}

/// The assumptions of this thread's trace.
pub(super) fn assumptions() -> Assumptions {
    RECORD.with_borrow(|record| {
        record
            .as_ref()
            .map_or_else(Assumptions::default, |(a, _)| *a)
    })
}

/// Adds an action to this thread's record.
pub(super) fn record(action: MemoryAction) {
    RECORD.with_borrow_mut(|record| {
        if let Some((_, actions)) = record {
            actions.push(action);
        }
    });
}

thread_local! {
    static RECORD: RefCell<Option<(Assumptions, Vec<MemoryAction>)>> = const { RefCell::new(None) };
}
