//! Pausing what runs on another thread, and knowing that it rests.
//!
//! Systems end apps that use the GPU in the background: whoever runs a model takes its work in
//! turns, and between two of them it can be held.

use std::{
    sync::{Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// A gate before each turn of work. Closed, it holds whoever comes; who is through ends its turn.
#[derive(Debug, Default)]
pub struct Gate {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    closed: bool,
    turns: usize,
}

/// A turn of work; it ends when this is dropped.
#[derive(Debug)]
pub struct Turn<'g>(&'g Gate);

impl Gate {
    /// Begins a turn, once the gate is open. `None` if it is closed and `give_up` says so; it is
    /// asked now and after every [`poke`](Self::poke).
    pub fn enter(&self, give_up: impl Fn() -> bool) -> Option<Turn<'_>> {
        let mut state = self.lock();
        while state.closed {
            if give_up() {
                return None;
            }
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        state.turns += 1;
        Some(Turn(self))
    }

    /// Closes the gate: no more turns begin.
    pub fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Opens the gate.
    pub fn open(&self) {
        self.lock().closed = false;
        self.changed.notify_all();
    }

    /// Whether it is closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed
    }

    /// Has everyone that waits here ask again whether to give up.
    pub fn poke(&self) {
        // Under the lock, so that nobody is between asking and waiting.
        let _state = self.lock();
        self.changed.notify_all();
    }

    /// Waits until no turn is under way, for at most `patience`; whether that was reached.
    pub fn rest(&self, patience: Duration) -> bool {
        let end = Instant::now() + patience;
        let mut state = self.lock();
        while state.turns > 0 {
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
        // A panic elsewhere leaves two numbers as they were.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.0.lock().turns -= 1;
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

    const SOON: Duration = Duration::from_millis(50);
    const LATE: Duration = Duration::from_secs(10);

    #[test]
    fn open_gate_does_not_block() {
        let gate = Gate::default();
        let first = gate.enter(|| true);
        assert!(first.is_some() && gate.enter(|| true).is_some());
        assert!(!gate.rest(SOON), "a turn is under way");
        drop(first);
        assert!(gate.rest(SOON));
    }

    #[test]
    fn closed_gate_blocks_until_opened() {
        let gate = Arc::new(Gate::default());
        gate.close();
        let (tell, told) = mpsc::channel();
        let inner = Arc::clone(&gate);
        let worker = thread::spawn(move || {
            let through = inner.enter(|| false).is_some();
            tell.send(through).unwrap();
        });
        assert!(told.recv_timeout(SOON).is_err(), "it went through");
        gate.open();
        assert_eq!(told.recv_timeout(LATE), Ok(true));
        worker.join().unwrap();
    }

    #[test]
    fn waiting_can_be_cancelled() {
        let gate = Arc::new(Gate::default());
        gate.close();
        let given_up = Arc::new(AtomicBool::new(false));
        let (inner, asked) = (Arc::clone(&gate), Arc::clone(&given_up));
        let worker = thread::spawn(move || inner.enter(|| asked.load(Ordering::SeqCst)).is_none());
        thread::sleep(SOON);
        given_up.store(true, Ordering::SeqCst);
        gate.poke();
        assert!(worker.join().unwrap());
        assert!(gate.is_closed() && gate.rest(SOON));
    }

    #[test]
    fn pause_waits_for_the_current_step() {
        let gate = Gate::default();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let turn = gate.enter(|| false);
            scope.spawn(|| {
                thread::sleep(SOON);
                done.store(true, Ordering::SeqCst);
                drop(turn);
            });
            gate.close();
            assert!(gate.rest(LATE) && done.load(Ordering::SeqCst));
        });
    }
}
