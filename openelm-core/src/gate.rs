//! A gate that pauses work on the device, and reports when none is running.
//!
//! Operating systems end apps that use the GPU in the background. The thread that owns MLX acquires
//! the gate before each unit of work (a token, a prompt chunk, a step) and rests at it within long
//! ones (a load, a conversion, a validation, a step with gradient checkpointing), when nothing is in
//! progress on the device.

use std::{
    cell::RefCell,
    fmt,
    rc::Rc,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use crate::{cancel::CancelHandle, error::Result};

/// A gate before each unit of work. While it is closed, no new unit begins. Clones are the same
/// gate.
#[derive(Debug, Clone, Default)]
pub struct Gate(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// Calls of [`Gate::close`] without their [`Gate::open`].
    closed: usize,
    /// Number of live guards that do not rest.
    held: usize,
    /// Number of calls of [`Gate::recheck`].
    rechecks: u64,
}

/// A running unit of work. Dropping it ends the unit.
#[derive(Debug)]
pub struct GateGuard(Gate);

impl Gate {
    /// Begins a unit of work if the gate is open.
    pub fn try_acquire(&self) -> Option<GateGuard> {
        let mut state = self.lock();
        if state.closed > 0 {
            return None;
        }
        state.held += 1;
        Some(GateGuard(self.clone()))
    }

    /// Closes the gate: no new unit of work begins. Each call needs its own [`open`](Self::open).
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = state.closed.saturating_add(1);
        drop(state);
        self.0.changed.notify_all();
    }

    /// Takes a [`close`](Self::close) back. The last one opens the gate; an open gate stays open.
    pub fn open(&self) {
        let mut state = self.lock();
        state.closed = state.closed.saturating_sub(1);
        drop(state);
        self.0.changed.notify_all();
    }

    /// True while the gate is closed.
    pub fn is_closed(&self) -> bool {
        self.lock().closed > 0
    }

    /// Makes each resting thread examine its condition for an end of the rest again.
    pub fn recheck(&self) {
        // With the lock held, no thread is between its examination and its wait.
        let mut state = self.lock();
        state.rechecks = state.rechecks.wrapping_add(1);
        self.0.changed.notify_all();
    }

    /// Waits up to `timeout` until no unit of work is running. Returns true if none is.
    pub fn wait_idle(&self, timeout: Duration) -> bool {
        let end = Instant::now() + timeout;
        let mut state = self.lock();
        while state.held > 0 {
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.0.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Makes long jobs of this thread rest at this gate while it is closed, within the unit of work
    /// that the thread's guard stands for. `give_up` ends a rest; it is examined when the gate
    /// changes, and after each [`recheck`](Self::recheck). `between` is called at each point where a
    /// job can rest, before a rest, and within it after each such examination: for other work of
    /// the thread.
    pub fn attach(&self, give_up: impl Fn() -> bool + 'static, between: impl Fn() + 'static) {
        ATTACHED.set(Some(Rc::new(Attached {
            gate: self.clone(),
            give_up: Box::new(give_up),
            between: Box::new(between),
        })));
    }

    /// Runs `work`, which does not use the device, outside the thread's unit of work, which
    /// continues when the gate is open or `give_up` returns true. Nothing may be in progress on the
    /// device.
    pub fn suspend_during<T>(&self, give_up: impl Fn() -> bool, work: impl FnOnce() -> T) -> T {
        self.end_unit();
        // Also after a panic.
        let _continues = OnDrop(|| self.continue_unit(&give_up, || {}));
        work()
    }

    fn end_unit(&self) {
        let mut state = self.lock();
        state.held = state.held.saturating_sub(1);
        self.0.changed.notify_all();
    }

    /// Begins the unit of work again when the gate is open or `give_up` returns true; `between` is
    /// called before each wait.
    fn continue_unit(&self, give_up: impl Fn() -> bool, between: impl Fn()) {
        loop {
            let rechecks = self.lock().rechecks;
            between();
            let mut state = self.lock();
            loop {
                if state.closed == 0 || give_up() {
                    state.held += 1;
                    return;
                }
                if state.rechecks != rechecks {
                    break;
                }
                let waited = self.0.changed.wait(state);
                state = waited.unwrap_or_else(PoisonError::into_inner);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic in another thread cannot leave the two fields inconsistent.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl GateGuard {
    /// Ends the unit of work with nothing in progress on the device: if the gate is closed,
    /// `settle` waits for the device first. If it is open, the guard is returned: its unit lasts
    /// until the device has finished.
    pub fn end_if_closed(self, settle: impl FnOnce()) -> Option<Self> {
        if !self.0.is_closed() {
            return Some(self);
        }
        settle();
        None
    }
}

impl Drop for GateGuard {
    fn drop(&mut self) {
        self.0.end_unit();
    }
}

/// A point of a long job at which other work of the thread may run, and at which the job rests while
/// this thread's gate is closed. `settle` waits until nothing is in progress on the device; it is
/// called only before a rest.
///
/// # Errors
/// Errors of `settle`.
pub(crate) fn pause_point(
    cancel: &CancelHandle,
    settle: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let Some(attached) = ATTACHED.with_borrow(Clone::clone) else {
        return Ok(());
    };
    (attached.between)();
    if attached.gate.is_closed() {
        settle()?;
        let give_up = || cancel.is_cancelled() || (attached.give_up)();
        attached.gate.end_unit();
        attached.gate.continue_unit(give_up, &attached.between);
        (attached.between)();
    }
    Ok(())
}

/// The gate of a thread.
struct Attached {
    gate: Gate,
    give_up: Box<dyn Fn() -> bool>,
    between: Box<dyn Fn()>,
}

/// Calls a function when it is dropped.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

impl fmt::Debug for Attached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Attached").field(&self.gate).finish()
    }
}

thread_local! {
    static ATTACHED: RefCell<Option<Rc<Attached>>> = const { RefCell::new(None) };
}

#[cfg(test)]
mod tests {
    use std::{
        cell::Cell,
        panic::{AssertUnwindSafe, catch_unwind},
        rc::Rc,
        sync::atomic::{AtomicBool, Ordering},
        thread,
    };

    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(10);

    #[test]
    fn open_gate_admits_several_units() {
        let gate = Gate::default();
        let first = gate.try_acquire();
        assert!(first.is_some());
        let second = gate.try_acquire();
        assert!(second.is_some());
        drop(second);
        assert!(!gate.wait_idle(SHORT), "a unit of work is running");
        drop(first);
        assert!(gate.wait_idle(SHORT));
        gate.close();
        gate.close();
        assert!(gate.try_acquire().is_none());
        gate.open();
        assert!(gate.try_acquire().is_none(), "closed twice");
        gate.open();
        assert!(gate.try_acquire().is_some());
        gate.open();
        gate.close();
        assert!(gate.try_acquire().is_none(), "open once too often");
    }

    #[test]
    fn wait_idle_waits_for_the_unit_in_progress() {
        let gate = Gate::default();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            let guard = gate.try_acquire();
            scope.spawn(|| {
                thread::sleep(SHORT);
                done.store(true, Ordering::SeqCst);
                drop(guard);
            });
            gate.close();
            assert!(gate.wait_idle(LONG) && done.load(Ordering::SeqCst));
        });
    }

    #[test]
    fn unit_ends_settled_only_while_the_gate_is_closed() {
        let gate = Gate::default();
        let guard = gate.try_acquire().unwrap();
        let guard = guard
            .end_if_closed(|| panic!("settled with an open gate"))
            .unwrap();
        assert!(!gate.wait_idle(Duration::ZERO));
        gate.close();
        let mut settled = false;
        assert!(guard.end_if_closed(|| settled = true).is_none());
        assert!(settled && gate.wait_idle(Duration::ZERO));
    }

    /// A job on a thread of its own, which reaches a pause point after the gate is closed.
    fn job(gate: &Gate, cancel: &CancelHandle) -> thread::JoinHandle<bool> {
        let (gate, cancel) = (gate.clone(), cancel.clone());
        thread::spawn(move || {
            let guard = gate.try_acquire().unwrap();
            gate.attach(|| false, || {});
            while !gate.is_closed() {
                thread::yield_now();
            }
            let mut settled = false;
            pause_point(&cancel, || {
                assert!(!gate.wait_idle(Duration::ZERO), "at rest before it settled");
                settled = true;
                Ok(())
            })
            .unwrap();
            assert!(!gate.wait_idle(Duration::ZERO), "the unit goes on");
            drop(guard);
            settled
        })
    }

    /// Closes the gate once a unit of work runs.
    fn close(gate: &Gate) {
        while gate.wait_idle(Duration::ZERO) {
            thread::yield_now();
        }
        gate.close();
        assert!(gate.wait_idle(LONG));
    }

    #[test]
    fn long_job_settles_and_rests_until_the_gate_opens() {
        let (gate, cancel) = (Gate::default(), CancelHandle::default());
        let job = job(&gate, &cancel);
        close(&gate);
        thread::sleep(SHORT);
        assert!(!job.is_finished());
        gate.open();
        assert!(job.join().unwrap());
        assert!(gate.wait_idle(Duration::ZERO));
    }

    #[test]
    fn recheck_lets_a_resting_job_see_its_cancellation() {
        let (gate, cancel) = (Gate::default(), CancelHandle::default());
        let job = job(&gate, &cancel);
        close(&gate);
        cancel.cancel();
        gate.recheck();
        assert!(job.join().unwrap());
        assert!(gate.is_closed());
    }

    #[test]
    fn unit_is_suspended_during_work_without_the_device() {
        let gate = Gate::default();
        let guard = gate.try_acquire().unwrap();
        gate.close();
        let found = gate.suspend_during(
            || false,
            || {
                assert!(gate.wait_idle(Duration::ZERO));
                gate.open();
                7
            },
        );
        assert!(found == 7 && !gate.wait_idle(Duration::ZERO));
        let work = || gate.suspend_during(|| false, || panic!("of the work"));
        catch_unwind(AssertUnwindSafe(work)).unwrap_err();
        assert!(!gate.wait_idle(Duration::ZERO), "the unit goes on");
        drop(guard);
        assert!(gate.wait_idle(Duration::ZERO));
    }

    #[test]
    fn points_of_a_job_are_reported_with_an_open_gate_too() {
        let points = Rc::new(Cell::new(0));
        let counted = Rc::clone(&points);
        Gate::default().attach(|| false, move || counted.set(counted.get() + 1));
        let settle = || panic!("settled with an open gate");
        pause_point(&CancelHandle::default(), settle).unwrap();
        assert_eq!(points.get(), 1);
    }

    #[test]
    fn thread_without_a_gate_does_not_rest() {
        let settle = || panic!("settled without a gate");
        thread::spawn(move || pause_point(&CancelHandle::default(), settle).unwrap())
            .join()
            .unwrap();
    }
}
