//! The thread that owns MLX and all models.
//!
//! It runs jobs in order of arrival. Between jobs it gives each task (a generation, a fine-tuning)
//! a turn of one event, if the task's reader has room for it. While the gate is closed no turn
//! begins, and only jobs that do not use the device run. The work that a turn leaves on the device
//! holds the gate until it has ended.

use std::{
    collections::{HashMap, VecDeque},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
        mpsc::{self, Receiver, Sender},
    },
    thread,
};

use openelm_core::{Gate, GateGuard, LanguageModel, chat::Chat};

use crate::{
    error::{Error, Result},
    exit_guard,
};

/// State of the worker's thread, by id.
#[derive(Default)]
pub(crate) struct Models {
    pub(crate) loaded: HashMap<u64, LanguageModel>,
    pub(crate) chats: HashMap<u64, ChatSlot>,
    pub(crate) tasks: Vec<Box<dyn Task>>,
    /// The unit of work of what the tasks have left on the device.
    in_progress: Option<GateGuard>,
}

/// A conversation, with the id of its model.
pub(crate) struct ChatSlot {
    pub(crate) model: u64,
    pub(crate) chat: Chat,
    /// Id of the running answer.
    pub(crate) answering: Option<u64>,
}

/// Work that runs one event at a time.
pub(crate) trait Task {
    /// Id of the task's model.
    fn model(&self) -> u64;
    /// Returns true once the reader has closed the stream.
    fn is_closed(&self) -> bool;
    /// Returns true if the reader has room for the next event.
    fn is_ready(&mut self) -> bool;
    /// Produces one event. Returns false after the last one.
    fn turn(&mut self, models: &mut Models) -> bool;
    /// Waits for pending work on the device.
    fn settle(&mut self) {}
    /// Ends with an error after the events already sent; the next turn is the last.
    fn fail(&mut self, error: Error);
    /// Ends with an error at once, replacing an unread event.
    fn abort(&mut self, error: Error);
    /// Releases the task's resources.
    fn end(self: Box<Self>, _models: &mut Models) {}
}

impl Models {
    /// The model `id`.
    pub(crate) fn model(&mut self, id: u64) -> Result<&mut LanguageModel> {
        self.loaded.get_mut(&id).ok_or_else(Error::unloaded)
    }

    /// Drops a model and everything that uses it. Returns true if it existed.
    pub(crate) fn unload(&mut self, id: u64) -> bool {
        for mut task in std::mem::take(&mut self.tasks) {
            if task.model() == id {
                task.abort(Error::unloaded());
                task.end(self);
            } else {
                self.tasks.push(task);
            }
        }
        self.chats.retain(|_, slot| slot.model != id);
        self.loaded.remove(&id).is_some()
    }

    /// Ends the tasks whose readers have closed their streams.
    fn end_closed_tasks(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            if task.is_closed() {
                task.end(self);
            } else {
                self.tasks.push(task);
            }
        }
    }

    /// Waits for the work that the tasks have left on the device.
    fn settle(&mut self) {
        if self.in_progress.is_some() {
            for task in &mut self.tasks {
                task.settle();
            }
            self.in_progress = None;
        }
    }

    /// Gives every ready task a turn. Returns true if there was one.
    fn run_turns(&mut self, gate: &Gate) -> bool {
        let mut worked = false;
        if gate.is_closed() {
            self.settle();
        }
        for mut task in std::mem::take(&mut self.tasks) {
            if task.is_closed() {
                task.end(self);
                continue;
            }
            let mut more = true;
            if task.is_ready()
                && let Some(guard) = gate.try_acquire()
            {
                worked = true;
                let done = catch_unwind(AssertUnwindSafe(|| task.turn(self)));
                more = done.unwrap_or_else(|payload| {
                    task.fail(Error::panicked(&*payload));
                    true
                });
                // While the gate is closed, `settle` ends the work of earlier turns.
                if let Some(guard) = guard.end_if_closed(|| task.settle()) {
                    self.in_progress = Some(guard);
                }
            }
            if more {
                self.tasks.push(task);
            } else {
                task.end(self);
            }
        }
        worked
    }
}

/// A new id for a model, a conversation or a generation.
pub(crate) fn next_id() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The gate before every unit of work.
pub(crate) fn gate() -> &'static Gate {
    static GATE: OnceLock<Gate> = OnceLock::new();
    GATE.get_or_init(Gate::default)
}

/// Makes the worker check its tasks again.
pub(crate) fn wake() {
    if let Ok(worker) = worker() {
        let _ = worker.send(Message::Wake);
    }
}

/// Runs `work`, one unit of work, on the worker's thread once the gate is open. The core rests at
/// the gate within long work.
pub(crate) fn submit(work: impl FnOnce(&mut Models) + Send + 'static) -> Result<()> {
    let job = Message::Job(Box::new(work));
    worker()?.send(job).map_err(|_| Error::unusable())
}

/// Like [`submit`], but also while the gate is closed; `work` must not use the device.
pub(crate) fn submit_always(work: impl FnOnce(&mut Models) + Send + 'static) -> Result<()> {
    let job = Message::Always(Box::new(work));
    worker()?.send(job).map_err(|_| Error::unusable())
}

/// The result of `work` on the worker's thread; a panic is an error.
pub(crate) async fn call<T: Send + 'static>(
    work: impl FnOnce(&mut Models) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = async_channel::bounded(1);
    submit(move |models| {
        let _ = sender.try_send(catch_panic(|| work(models)));
    })?;
    receiver
        .recv()
        .await
        .unwrap_or_else(|_| Err(Error::unusable()))
}

/// Like [`call`], but also while the gate is closed; `work` must not use the device.
pub(crate) async fn call_always<T: Send + 'static>(
    work: impl FnOnce(&mut Models) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (sender, receiver) = async_channel::bounded(1);
    submit_always(move |models| {
        let _ = sender.try_send(catch_panic(|| work(models)));
    })?;
    receiver
        .recv()
        .await
        .unwrap_or_else(|_| Err(Error::unusable()))
}

/// Runs `work`, which does not use the device, within a job. A pause does not wait for it.
pub(crate) fn without_device<T>(work: impl FnOnce() -> T) -> T {
    gate().suspend_during(exit_guard::is_exiting, work)
}

/// The worker calls this between the parts of long work. Does not return while the process exits.
fn between_units() {
    exit_guard::register();
    if exit_guard::is_exiting() {
        exit_guard::stop();
    }
}

/// Runs `work`; a panic becomes an error.
pub(crate) fn catch_panic<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|payload| Err(Error::panicked(&*payload)))
}

type Job = Box<dyn FnOnce(&mut Models) + Send>;

enum Message {
    Job(Job),
    Always(Job),
    Wake,
}

fn worker() -> Result<&'static Sender<Message>> {
    static WORKER: OnceLock<Option<Sender<Message>>> = OnceLock::new();
    let started = WORKER.get_or_init(|| {
        let (sender, messages) = mpsc::channel();
        let thread = thread::Builder::new().name("openelm".into());
        let spawned = thread.spawn(move || run(&messages));
        spawned.is_ok().then_some(sender)
    });
    started.as_ref().ok_or_else(Error::unusable)
}

fn run(messages: &Receiver<Message>) {
    let mut models = Models::default();
    let mut jobs: VecDeque<Job> = VecDeque::new();
    let mut worked = false;
    gate().attach(exit_guard::is_exiting, between_units);
    loop {
        if exit_guard::is_exiting() {
            exit_guard::stop();
        }
        // Blocks only if the last round found nothing to do.
        let first = if worked {
            messages.try_recv().ok()
        } else {
            match messages.recv() {
                Ok(message) => Some(message),
                // All senders are gone.
                Err(_) => return,
            }
        };
        for message in first.into_iter().chain(messages.try_iter()) {
            match message {
                Message::Job(job) => jobs.push_back(job),
                Message::Always(job) => {
                    models.end_closed_tasks();
                    job(&mut models);
                }
                Message::Wake => {}
            }
        }
        models.end_closed_tasks();
        worked = false;
        if !jobs.is_empty()
            && let Some(guard) = gate().try_acquire()
            && let Some(job) = jobs.pop_front()
        {
            // While a long job rests, nothing of the tasks is in progress either.
            models.settle();
            job(&mut models);
            drop(guard);
            worked = true;
        }
        worked |= models.run_turns(gate());
        exit_guard::register();
    }
}
