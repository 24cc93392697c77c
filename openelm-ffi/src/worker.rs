//! The one thread that owns MLX, and every model with it.
//!
//! It runs jobs in the order they come, and between them gives each task that runs long (a
//! generation, a fine-tuning) a turn of one event, if its reader has room for it. While the gate is
//! closed no turn begins, and only jobs that use no device are run.

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

use openelm_core::{
    LanguageModel,
    chat::Chat,
    internal::{Gate, Turn},
};

use crate::{
    ending,
    error::{EngineError, Result},
};

/// What lives on the worker's thread, by number.
#[derive(Default)]
pub(crate) struct Models {
    pub(crate) loaded: HashMap<u64, LanguageModel>,
    pub(crate) chats: HashMap<u64, ChatSlot>,
    pub(crate) tasks: Vec<Box<dyn Task>>,
}

/// A conversation, with the number of its model.
pub(crate) struct ChatSlot {
    pub(crate) model: u64,
    pub(crate) chat: Chat,
    /// The number of the generation that answers.
    pub(crate) answering: Option<u64>,
}

/// What gets turns.
pub(crate) trait Task {
    /// The number of its model.
    fn model(&self) -> u64;
    /// Whether its reader has gone.
    fn is_over(&self) -> bool;
    /// Whether it has work, and a place for its result.
    fn is_ready(&mut self) -> bool;
    /// One event; false after the last one.
    fn turn(&mut self, models: &mut Models) -> bool;
    /// Waits for what is under way on the device.
    fn settle(&mut self) {}
    /// Ends with an error, which comes after what was sent before; its next turn is the last.
    fn fail(&mut self, error: EngineError);
    /// Ends with an error at once.
    fn abort(&mut self, error: EngineError);
    /// Puts back what it used.
    fn end(self: Box<Self>, _models: &mut Models) {}
}

impl Models {
    /// The model `number`.
    pub(crate) fn model(&mut self, number: u64) -> Result<&mut LanguageModel> {
        self.loaded
            .get_mut(&number)
            .ok_or_else(EngineError::unloaded)
    }

    /// Forgets a model and all that uses it.
    pub(crate) fn unload(&mut self, number: u64) -> bool {
        for mut task in std::mem::take(&mut self.tasks) {
            if task.model() == number {
                task.abort(EngineError::unloaded());
                task.end(self);
            } else {
                self.tasks.push(task);
            }
        }
        self.chats.retain(|_, slot| slot.model != number);
        self.loaded.remove(&number).is_some()
    }

    /// Ends the tasks whose readers have gone.
    fn sweep(&mut self) {
        for task in std::mem::take(&mut self.tasks) {
            match task.is_over() {
                true => task.end(self),
                false => self.tasks.push(task),
            }
        }
    }

    /// Gives every task that is ready a turn; whether one was.
    fn turns(&mut self, gate: &Gate) -> bool {
        let mut worked = false;
        for mut task in std::mem::take(&mut self.tasks) {
            if task.is_over() {
                task.end(self);
                continue;
            }
            let mut more = true;
            if task.is_ready()
                && let Some(turn) = gate.enter(|| true)
            {
                worked = true;
                let done = catch_unwind(AssertUnwindSafe(|| task.turn(self)));
                more = done.unwrap_or_else(|payload| {
                    task.fail(EngineError::panicked(&*payload));
                    true
                });
                if gate.is_closed() {
                    task.settle();
                }
                drop(turn);
            }
            match more {
                true => self.tasks.push(task),
                false => task.end(self),
            }
        }
        worked
    }
}

/// A new number for a model or a conversation.
pub(crate) fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The gate before every turn.
pub(crate) fn gate() -> &'static Gate {
    static GATE: OnceLock<Gate> = OnceLock::new();
    GATE.get_or_init(Gate::default)
}

/// Has the worker look again at its tasks.
pub(crate) fn wake() {
    if let Ok(worker) = worker() {
        let _ = worker.send(Message::Wake);
    }
}

/// Runs `work` on the worker's thread, once the gate is open. A turn is under way until it is
/// dropped.
pub(crate) fn submit(work: impl FnOnce(&mut Models, Turn<'static>) + Send + 'static) -> Result<()> {
    let job = Message::Job(Box::new(work));
    worker()?.send(job).map_err(|_| EngineError::unusable())
}

/// As [`submit`], also while the gate is closed; `work` must use no device.
pub(crate) fn submit_always(work: impl FnOnce(&mut Models) + Send + 'static) -> Result<()> {
    let job = Message::Always(Box::new(work));
    worker()?.send(job).map_err(|_| EngineError::unusable())
}

/// The result of `work` on the worker's thread; a panic is an error.
pub(crate) async fn call<T: Send + 'static>(
    work: impl FnOnce(&mut Models) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (tell, told) = async_channel::bounded(1);
    submit(move |models, _turn| {
        let _ = tell.try_send(guard(|| work(models)));
    })?;
    told.recv()
        .await
        .unwrap_or_else(|_| Err(EngineError::unusable()))
}

/// As [`call`], also while the gate is closed; `work` must use no device.
pub(crate) async fn call_always<T: Send + 'static>(
    work: impl FnOnce(&mut Models) -> Result<T> + Send + 'static,
) -> Result<T> {
    let (tell, told) = async_channel::bounded(1);
    submit_always(move |models| {
        let _ = tell.try_send(guard(|| work(models)));
    })?;
    told.recv()
        .await
        .unwrap_or_else(|_| Err(EngineError::unusable()))
}

/// A panic as an error.
pub(crate) fn guard<T>(work: impl FnOnce() -> Result<T>) -> Result<T> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|payload| Err(EngineError::panicked(&*payload)))
}

type Job = Box<dyn FnOnce(&mut Models, Turn<'static>) + Send>;

enum Message {
    Job(Job),
    Always(Box<dyn FnOnce(&mut Models) + Send>),
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
    started.as_ref().ok_or_else(EngineError::unusable)
}

fn run(messages: &Receiver<Message>) {
    let mut models = Models::default();
    let mut jobs: VecDeque<Job> = VecDeque::new();
    let mut worked = false;
    loop {
        if ending::has_begun() {
            ending::stop();
        }
        // What is there; if there was nothing to do, what comes.
        let first = match worked {
            true => messages.try_recv().ok(),
            false => match messages.recv() {
                Ok(message) => Some(message),
                // Nobody is left to ask.
                Err(_) => return,
            },
        };
        for message in first.into_iter().chain(messages.try_iter()) {
            match message {
                Message::Job(job) => jobs.push_back(job),
                Message::Always(job) => {
                    models.sweep();
                    job(&mut models);
                }
                Message::Wake => {}
            }
        }
        models.sweep();
        worked = false;
        if !jobs.is_empty()
            && let Some(turn) = gate().enter(|| true)
            && let Some(job) = jobs.pop_front()
        {
            job(&mut models, turn);
            worked = true;
        }
        worked |= models.turns(gate());
        ending::register();
    }
}
