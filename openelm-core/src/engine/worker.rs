//! The thread of an engine.
//!
//! It makes a turn of all generations whose readers have room, then a unit of one long job or
//! training, and so on; [`Share`] divides the time. At the pause points of long work
//! ([`pause_point`](crate::gate::pause_point)) the same turns are made. While the gate is closed no
//! turn begins, and only requests that do not use the device are served. The work that a turn
//! leaves on the device holds the gate until it has ended.

use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    panic::{AssertUnwindSafe, catch_unwind},
    rc::Rc,
    sync::mpsc::{Receiver, RecvTimeoutError},
    time::{Duration, Instant},
};

use super::{engine::EngineHooks, finetune::FinetuneTask, share::Share, state::State};
use crate::{
    error::{Error, Result},
    gate::{Gate, GateGuard},
};

pub(super) type Unit = Box<dyn FnOnce(&mut State) + Send>;
pub(super) type Long = Box<dyn FnOnce(&Worker) + Send>;

/// A request to the thread.
pub(super) enum Message {
    /// Work that does not use the device.
    Now(Unit),
    /// One unit of work.
    Unit(Unit),
    /// Long work, which has pause points.
    Long(Long),
    /// The state of a reader or of the gate has changed.
    Wake,
}

/// The thread's state. Long work runs while `state` is not borrowed.
pub(super) struct Worker {
    messages: Receiver<Message>,
    gate: Gate,
    hooks: EngineHooks,
    state: RefCell<State>,
    units: RefCell<VecDeque<Unit>>,
    long: RefCell<VecDeque<Long>>,
    share: RefCell<Share>,
    /// The unit of work of what the generations have left on the device.
    in_progress: RefCell<Option<GateGuard>>,
    /// The begin of the running unit of long work.
    unit_began: Cell<Instant>,
    /// All handles are gone.
    disconnected: Cell<bool>,
    /// The next unit is one of a training, not of a long job.
    training_is_next: Cell<bool>,
}

/// Runs the thread until the last handle of the engine is dropped.
pub(super) fn run(messages: Receiver<Message>, gate: Gate, hooks: EngineHooks) {
    let worker = Rc::new(Worker {
        messages,
        gate,
        hooks,
        state: RefCell::default(),
        units: RefCell::default(),
        long: RefCell::default(),
        share: RefCell::default(),
        in_progress: RefCell::default(),
        unit_began: Cell::new(Instant::now()),
        disconnected: Cell::new(false),
        training_is_next: Cell::new(false),
    });
    let between = Rc::downgrade(&worker);
    worker.gate.attach(hooks.give_up, move || {
        if let Some(worker) = between.upgrade() {
            worker.serve_within_long_work();
        }
    });
    worker.run();
    // The state belongs to this thread and is dropped here, once the device is idle.
    worker.settle();
}

/// Runs `work`; a panic becomes an error.
pub(super) fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(Error::panicked(&*payload)))
}

impl Worker {
    /// Gives `work` the state.
    pub(super) fn with_state<T>(&self, work: impl FnOnce(&mut State) -> T) -> T {
        work(&mut self.state.borrow_mut())
    }

    fn run(&self) {
        let mut worked = false;
        while !self.disconnected.get() {
            (self.hooks.after_unit)();
            self.receive(if worked { Some(Duration::ZERO) } else { None });
            worked = self.run_units();
            worked |= self.advance_generations();
            if self.share.borrow().remains() && self.has_generations() {
                if worked {
                    continue;
                }
                // The readers have not taken their events yet.
                let start = Instant::now();
                let wait = self.share.borrow().wait();
                self.receive(Some(wait));
                self.share.borrow_mut().spend(start);
                worked = true;
                continue;
            }
            worked |= self.run_long_or_training();
        }
    }

    /// Receives requests, and waits for the first one: for ever if `wait` is `None`.
    fn receive(&self, wait: Option<Duration>) {
        let first = match wait {
            Some(Duration::ZERO) => self.messages.try_recv().ok(),
            Some(wait) => match self.messages.recv_timeout(wait) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => {
                    self.disconnected.set(true);
                    None
                }
            },
            None => match self.messages.recv() {
                Ok(message) => Some(message),
                Err(_) => {
                    self.disconnected.set(true);
                    None
                }
            },
        };
        for message in first.into_iter().chain(self.messages.try_iter()) {
            match message {
                Message::Now(work) => self.with_state(|state| {
                    state.end_closed();
                    work(state);
                }),
                Message::Unit(work) => self.units.borrow_mut().push_back(work),
                Message::Long(work) => self.long.borrow_mut().push_back(work),
                Message::Wake => {}
            }
        }
        self.with_state(State::end_closed);
    }

    /// Runs the requests of one unit each. Returns true if there was one.
    fn run_units(&self) -> bool {
        let mut worked = false;
        while !self.units.borrow().is_empty()
            && let Some(_guard) = self.gate.try_acquire()
        {
            let unit = self.units.borrow_mut().pop_front();
            if let Some(unit) = unit {
                self.with_state(unit);
                worked = true;
            }
        }
        worked
    }

    /// Makes a turn of all ready generations. Returns true if there was one.
    fn advance_generations(&self) -> bool {
        let Some(guard) = self.gate.try_acquire() else {
            self.settle();
            return false;
        };
        let start = Instant::now();
        let worked = self.with_state(State::advance_generations);
        if !worked {
            return false;
        }
        self.share.borrow_mut().spend(start);
        // While the gate is closed, `settle` ends the work of earlier turns.
        let guard = guard.end_if_closed(|| self.with_state(State::settle_generations));
        if let Some(guard) = guard {
            *self.in_progress.borrow_mut() = Some(guard);
        }
        true
    }

    /// Runs `work`, which does not use the device, within long work. A pause does not wait for it.
    pub(super) fn without_device<T>(&self, work: impl FnOnce() -> T) -> T {
        self.settle();
        self.gate.suspend_during(self.hooks.give_up, work)
    }

    fn has_generations(&self) -> bool {
        !self.state.borrow().generations.is_empty()
    }

    /// Waits for the work that generations have left on the device.
    fn settle(&self) {
        if self.in_progress.borrow().is_some() {
            self.with_state(State::settle_generations);
            *self.in_progress.borrow_mut() = None;
        }
    }

    /// Runs a unit of a training or a long job, in turn. Returns true if there was one.
    fn run_long_or_training(&self) -> bool {
        let Some(guard) = self.gate.try_acquire() else {
            return false;
        };
        let training_first = self.training_is_next.replace(false);
        self.unit_began.set(Instant::now());
        let worked = (training_first && self.run_training()) || self.run_long() || {
            !training_first && self.run_training()
        };
        if worked {
            // A long job that is done is followed by a unit of a training.
            self.training_is_next.set(!training_first);
            self.share
                .borrow_mut()
                .begin(self.unit_began.get().elapsed());
        }
        drop(guard);
        worked
    }

    fn run_long(&self) -> bool {
        let job = self.long.borrow_mut().pop_front();
        let Some(job) = job else {
            return false;
        };
        job(self);
        true
    }

    /// Runs a unit of the first training that is ready, which is then the last.
    fn run_training(&self) -> bool {
        self.run_training_if(FinetuneTask::is_ready)
    }

    /// Ends the trainings that were cancelled, so that their folders are free.
    pub(super) fn end_cancelled_trainings(&self) {
        while self.run_training_if(|task| task.is_cancelled() && task.is_running()) {}
    }

    /// Runs a unit of the first training that is `chosen`, which is then the last.
    fn run_training_if(&self, mut chosen: impl FnMut(&mut FinetuneTask) -> bool) -> bool {
        let task = self.with_state(|state| {
            let found = state.finetunes.iter_mut().position(&mut chosen)?;
            state.finetunes.remove(found)
        });
        let Some(mut task) = task else {
            return false;
        };
        let goes_on = task.unit();
        self.with_state(|state| {
            if !state.models.contains_key(&task.model()) {
                task.abort();
            } else if goes_on {
                state.finetunes.push_back(task);
            }
        });
        true
    }

    /// Serves requests and generations at a pause point of long work, for their share of the time.
    fn serve_within_long_work(&self) {
        (self.hooks.after_unit)();
        // A unit that has pause points itself holds the state.
        if self.state.try_borrow_mut().is_err() {
            return;
        }
        self.share
            .borrow_mut()
            .begin(self.unit_began.get().elapsed());
        loop {
            self.receive(Some(Duration::ZERO));
            let mut worked = self.run_units();
            worked |= self.advance_generations();
            if !self.share.borrow().remains() || !self.has_generations() || self.gate.is_closed() {
                break;
            }
            (self.hooks.after_unit)();
            if !worked {
                let start = Instant::now();
                let wait = self.share.borrow().wait();
                self.receive(Some(wait));
                self.share.borrow_mut().spend(start);
            }
        }
        self.unit_began.set(Instant::now());
    }
}
