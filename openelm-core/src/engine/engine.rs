//! The handle of the engine's thread.

use std::{
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{
    state::State,
    worker::{self, Message, Unit, Worker},
};
use crate::{
    error::{Error, Result},
    gate::Gate,
    mlx::memory,
};

/// A thread that owns MLX and all models. Clones are handles of the same thread, which ends when
/// the last handle is dropped; the drop waits for it.
#[derive(Debug, Clone)]
pub struct Engine(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `None` once the thread must end.
    messages: Option<Sender<Message>>,
    thread: Option<JoinHandle<()>>,
    gate: Gate,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.messages = None;
        self.gate.open();
        // A program that ends destroys MLX's globals, which the thread must no longer use.
        if let Some(running) = self.thread.take()
            && running.thread().id() != thread::current().id()
        {
            let _ = running.join();
        }
    }
}

/// Functions of the program that the engine's thread calls.
#[derive(Debug, Clone, Copy)]
pub struct EngineHooks {
    /// Called after each unit of work.
    pub after_unit: fn(),
    /// A pause ends once this returns true, so that the thread can end; examined when the engine
    /// pauses or resumes, and after each [`Engine::recheck`].
    pub give_up: fn() -> bool,
}

impl Default for EngineHooks {
    fn default() -> Self {
        Self {
            after_unit: || {},
            give_up: || false,
        }
    }
}

impl Engine {
    /// Starts the thread.
    ///
    /// # Errors
    /// [`Error::Unusable`] if the system has no thread left.
    pub fn start() -> Result<Self> {
        Self::start_with(EngineHooks::default())
    }

    /// Like [`start`](Self::start), with functions of the program.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn start_with(hooks: EngineHooks) -> Result<Self> {
        let (sender, messages) = mpsc::channel();
        let gate = Gate::default();
        let of_worker = gate.clone();
        let spawned = thread::Builder::new()
            .name("openelm".into())
            .spawn(move || worker::run(messages, of_worker, hooks));
        match spawned {
            Ok(thread) => Ok(Self(Arc::new(Inner {
                messages: Some(sender),
                thread: Some(thread),
                gate,
            }))),
            Err(_) => Err(Error::Unusable),
        }
    }

    /// Pauses all work before its next token, prompt chunk, tensor or batch, and waits up to `wait`
    /// for the device. Returns true if no work is running. Each call needs its own
    /// [`resume`](Self::resume).
    pub fn pause(&self, wait: Duration) -> bool {
        self.0.gate.close();
        // The thread waits for what its last turns have left on the device.
        self.wake();
        self.0.gate.wait_idle(wait)
    }

    /// Like [`pause`](Self::pause), without blocking the calling thread. The pause holds from the
    /// first poll, also if the future is then dropped.
    pub async fn pause_async(&self, wait: Duration) -> bool {
        self.0.gate.close();
        self.wake();
        let (sender, receiver) = async_channel::bounded(1);
        let gate = self.0.gate.clone();
        let thread = thread::Builder::new().name("openelm-pause".into());
        // Without a thread the wait is left out: it is not known that the device is idle.
        let waits = thread.spawn(move || {
            let _ = sender.try_send(gate.wait_idle(wait));
        });
        waits.is_ok() && receiver.recv().await.unwrap_or(false)
    }

    /// Takes a [`pause`](Self::pause) back; work continues after the last one. Has no effect
    /// without a pause.
    pub fn resume(&self) {
        self.0.gate.open();
        self.wake();
    }

    /// Makes paused work examine its cancellation and [`EngineHooks::give_up`] again.
    pub fn recheck(&self) {
        self.0.gate.recheck();
    }

    /// Makes the thread examine its work again, and call [`EngineHooks::after_unit`].
    pub fn wake(&self) {
        let _ = self.send_only(Message::Wake);
    }

    /// Frees the keys and values that are kept for later requests, and the buffers in MLX's cache.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn clear_caches(&self) -> Result<()> {
        self.submit_now(|state| {
            for loaded in state.models.values_mut() {
                loaded.prefixes.clear();
            }
            let _ = memory::clear_cache();
        })
    }

    /// Runs `work` as a long job.
    pub(super) fn submit_long(&self, work: impl FnOnce(&Worker) + Send + 'static) -> Result<()> {
        self.send(Message::Long(Box::new(work)))
    }

    /// Runs `work`, one unit of work, once the engine is not paused.
    pub(super) fn submit(&self, work: impl FnOnce(&mut State) + Send + 'static) -> Result<()> {
        self.send(Message::Unit(Box::new(work)))
    }

    /// Runs `work` on a thread of its own, then `unit` as [`submit`](Self::submit) does. A panic of
    /// `work` has no effect. Without a thread, `unit` runs alone.
    pub(super) fn submit_after(
        &self,
        work: impl FnOnce() + Send + 'static,
        unit: impl FnOnce(&mut State) + Send + 'static,
    ) -> Result<()> {
        let (started, starts) = mpsc::channel();
        let thread = thread::Builder::new().name("openelm-compile".into());
        // The sender keeps the engine's thread until the unit is sent.
        let messages = self.0.messages.clone().ok_or(Error::Unusable)?;
        let gate = self.0.gate.clone();
        let spawned = thread.spawn(move || {
            let Ok(unit) = starts.recv() else {
                return;
            };
            let _ = worker::catch_panic(|| {
                work();
                Ok(())
            });
            let _ = messages.send(Message::Unit(unit));
            gate.recheck();
        });
        let unit: Unit = Box::new(unit);
        match spawned {
            // Fails only if the thread has ended.
            Ok(_) => started.send(unit).map_err(|_| Error::Unusable),
            Err(_) => self.send(Message::Unit(unit)),
        }
    }

    /// Like [`submit`](Self::submit), but also during a pause; `work` must not use the device.
    pub(super) fn submit_now(&self, work: impl FnOnce(&mut State) + Send + 'static) -> Result<()> {
        self.send(Message::Now(Box::new(work)))
    }

    /// The result of `work`, one unit of work; a panic is an error.
    pub(super) async fn call<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = async_channel::bounded(1);
        self.submit(move |state| {
            let _ = sender.try_send(worker::catch_panic(|| work(state)));
        })?;
        receiver.recv().await.unwrap_or(Err(Error::Unusable))
    }

    /// Like [`call`](Self::call), and blocks the calling thread.
    pub(super) fn call_blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = async_channel::bounded(1);
        self.submit(move |state| {
            let _ = sender.try_send(worker::catch_panic(|| work(state)));
        })?;
        receiver.recv_blocking().unwrap_or(Err(Error::Unusable))
    }

    /// Like [`call`](Self::call), but also during a pause; `work` must not use the device.
    pub(super) async fn call_now<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut State) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let (sender, receiver) = async_channel::bounded(1);
        self.submit_now(move |state| {
            let _ = sender.try_send(worker::catch_panic(|| work(state)));
        })?;
        receiver.recv().await.unwrap_or(Err(Error::Unusable))
    }

    fn send(&self, message: Message) -> Result<()> {
        self.send_only(message)?;
        // Work that rests serves requests that need no device.
        self.0.gate.recheck();
        Ok(())
    }

    fn send_only(&self, message: Message) -> Result<()> {
        let messages = self.0.messages.as_ref();
        let sent = messages.map(|messages| messages.send(message));
        sent.and_then(|sent| sent.ok()).ok_or(Error::Unusable)
    }
}
