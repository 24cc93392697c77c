//! A gate that pauses the worker and reports when the worker is idle.
//!
//! Operating systems end apps that use the GPU in the background. The worker acquires the gate
//! before each unit of work (a token, a prompt chunk, a tensor, a step), so it can pause between
//! two units.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A gate before each unit of work. While it is closed, no new unit begins.
#[derive(Debug, Default)]
pub(crate) struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    /// Number of live guards.
    held: usize,
}

/// A running unit of work. Dropping it ends the unit.
#[derive(Debug)]
pub(crate) struct GateGuard<'g>(&'g Gate);

impl Gate {
    /// Begins a unit of work once the gate is open. `None` if the gate is closed and `give_up`
    /// returns true; `give_up` is called now and after every [`recheck`](Self::recheck).
    pub(crate) fn acquire(&self, give_up: impl Fn() -> bool) -> Option<GateGuard<'_>> {
        let mut state = self.lock();
        while state.closed {
            if give_up() {
                return None;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.held += 1;
        Some(GateGuard(self))
    }

    /// Begins a unit of work if the gate is open.
    pub(crate) fn try_acquire(&self) -> Option<GateGuard<'_>> {
        self.acquire(|| true)
    }

    /// Closes the gate: no new unit of work begins.
    pub(crate) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Opens the gate.
    pub(crate) fn open(&self) {
        self.lock().closed = false;
        self.changed.notify_all();
    }

    /// Returns true while the gate is closed.
    pub(crate) fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Makes every waiting [`acquire`](Self::acquire) call its `give_up` again.
    pub(crate) fn recheck(&self) {
        // With the lock held, no thread is between its call of `give_up` and its wait.
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// Waits up to `timeout` until no unit of work is running. Returns true if none is.
    pub(crate) fn wait_idle(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        while state.held > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in another thread cannot leave the two fields inconsistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for GateGuard<'_> {
    fn drop(&mut self) {
        self.0.lock().held -= 1;
        self.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering},
            mpsc,
        },
        thread,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn open_gate_admits_several_units() {
        let gate = Gate::default();
        let first = gate.try_acquire();
        assert!(first.is_some() && gate.try_acquire().is_some());
        assert!(!gate.wait_idle(SHORT), "a unit of work is running");
        drop(first);
        assert!(gate.wait_idle(SHORT));
    }

    #[test]
    fn closed_gate_blocks_until_opened() {
        let gate = Arc::new(Gate::default());
        gate.close();
        let (sender, receiver) = mpsc::channel();
        let inner = Arc::clone(&gate);
        let worker = thread::spawn(move || {
            let acquired = inner.acquire(|| false).is_some();
            sender.send(acquired).unwrap();
        });
        assert!(
            receiver.recv_timeout(SHORT).is_err(),
            "acquired while closed"
        );
        gate.open();
        assert_eq!(receiver.recv_timeout(LONG), Ok(true));
        worker.join().unwrap();
    }

    #[test]
    fn recheck_lets_a_waiting_thread_give_up() {
        let gate = Arc::new(Gate::default());
        gate.close();
        let cancelled = Arc::new(AtomicBool::new(false));
        let (inner, flag) = (Arc::clone(&gate), Arc::clone(&cancelled));
        let worker = thread::spawn(move || inner.acquire(|| flag.load(Ordering::SeqCst)).is_none());
        thread::sleep(SHORT);
        cancelled.store(true, Ordering::SeqCst);
        gate.recheck();
        assert!(worker.join().unwrap());
        assert!(gate.is_closed() && gate.wait_idle(SHORT));
    }

    #[test]
    fn wait_idle_waits_for_the_unit_under_way() {
        let gate = Gate::default();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let guard = gate.acquire(|| false);
            scope.spawn(|| {
                thread::sleep(SHORT);
                done.store(true, Ordering::SeqCst);
                drop(guard);
            });
            gate.close();
            assert!(gate.wait_idle(LONG) && done.load(Ordering::SeqCst));
        });
    }
}
