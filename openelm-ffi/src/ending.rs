//! The end of the process. `exit`, which quitting an app comes to, destroys MLX's globals while
//! other threads go on: a worker that computes then, or merely frees memory, crashes the app. So
//! `exit` waits until the worker has stopped.
#![allow(unsafe_code)] // `atexit` alone: any function that does not unwind will do for it.

use std::{
    ffi::c_int,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use crate::worker::{self, guard};

/// How long `exit` waits: longer than a token, a tensor or a chunk of a prompt takes.
const PATIENCE: Duration = Duration::from_secs(5);

unsafe extern "C" {
    safe fn atexit(function: extern "C" fn()) -> c_int;
}

static BEGUN: AtomicBool = AtomicBool::new(false);
static STOPPED: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();

/// Has `exit` wait for the worker before it destroys what was made up to now. To be called after
/// each piece of work: what is registered last comes first, and MLX makes its globals when it first
/// needs them. It is registered ever more seldom.
pub(crate) fn register() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    if (CALLS.fetch_add(1, Ordering::Relaxed).wrapping_add(1)).is_power_of_two() {
        // If there is no room, `exit` does not wait; nothing else depends on it.
        let _ = atexit(wait);
    }
}

/// Whether the worker shall stop.
pub(crate) fn has_begun() -> bool {
    BEGUN.load(Ordering::SeqCst)
}

/// For the worker, between two pieces of work: waits for what is under way on the device, lets
/// `exit` go on, and stays where it is.
pub(crate) fn stop() -> ! {
    let _ = guard(|| Ok(openelm_core::runtime::synchronize()?));
    *STOPPED.lock().unwrap_or_else(PoisonError::into_inner) = true;
    CHANGED.notify_all();
    loop {
        thread::park();
    }
}

extern "C" fn wait() {
    BEGUN.store(true, Ordering::SeqCst);
    worker::wake();
    worker::gate().poke();
    let stopped = STOPPED.lock().unwrap_or_else(PoisonError::into_inner);
    drop(CHANGED.wait_timeout_while(stopped, PATIENCE, |stopped| !*stopped));
}
