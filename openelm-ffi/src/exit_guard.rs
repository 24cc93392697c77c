//! Stops the worker before the process ends. `exit`, which runs when an app quits, destroys MLX's
//! globals while other threads still run: a worker that computes or frees memory then crashes the
//! app. Therefore `exit` waits until the worker has stopped.
#![allow(
    unsafe_code,
    reason = "declares `atexit`, which is sound with any function that does not unwind"
)]

use std::{
    ffi::c_int,
    panic::catch_unwind,
    sync::{
        Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering},
    },
    thread,
    time::Duration,
};

use crate::engine;

/// Maximum time that `exit` waits: longer than a token, a tensor, a prompt chunk or a batch takes.
const TIMEOUT: Duration = Duration::from_secs(5);

unsafe extern "C" {
    safe fn atexit(function: extern "C" fn()) -> c_int;
}

static EXITING: AtomicBool = AtomicBool::new(false);
static STOPPED: Mutex<bool> = Mutex::new(false);
static CHANGED: Condvar = Condvar::new();

/// The engine calls this after each unit of work. Does not return while the process exits.
pub(crate) fn after_unit() {
    register();
    if is_exiting() {
        stop();
    }
}

/// Registers the wait with `atexit`. Handlers run in reverse order of registration, and MLX creates
/// its globals on first use, so the wait is registered again after 1, 2, 4, 8, ... calls.
fn register() {
    static CALLS: AtomicU32 = AtomicU32::new(0);
    if (CALLS.fetch_add(1, Ordering::Relaxed).wrapping_add(1)).is_power_of_two() {
        // If the table of handlers is full, `exit` does not wait; nothing else depends on it.
        let _ = atexit(wait);
    }
}

/// Returns true once the process is exiting. The worker must then stop.
pub(crate) fn is_exiting() -> bool {
    EXITING.load(Ordering::SeqCst)
}

/// Stops the worker between two units of work: waits for the device, lets `exit` continue, and
/// never returns.
fn stop() -> ! {
    let _ = catch_unwind(openelm_core::runtime::synchronize);
    *STOPPED.lock().unwrap_or_else(PoisonError::into_inner) = true;
    CHANGED.notify_all();
    loop {
        thread::park();
    }
}

extern "C" fn wait() {
    EXITING.store(true, Ordering::SeqCst);
    engine::wake();
    let stopped = STOPPED.lock().unwrap_or_else(PoisonError::into_inner);
    drop(CHANGED.wait_timeout_while(stopped, TIMEOUT, |stopped| !*stopped));
}
