//! A channel of events from the engine's thread to one reader. It holds one event; the sender
//! queues the rest.

use std::collections::VecDeque;

use async_channel::{Receiver, Sender, TrySendError};

use super::engine::Engine;
use crate::error::Result;

/// The engine's end. It never blocks, so a slow reader does not delay others.
#[derive(Debug)]
pub(super) struct EventSender<E> {
    /// `None` if the events have no reader.
    sender: Option<Sender<Result<E>>>,
    /// Events waiting for room: usually one, rarely two.
    queue: VecDeque<Result<E>>,
}

/// The reader's end: a stream of events. Dropping it ends the work behind it.
#[derive(Debug)]
pub struct EventReceiver<E> {
    events: Receiver<Result<E>>,
    engine: Engine,
}

/// Shows whether a stream is closed.
#[derive(Debug)]
pub(super) struct Monitor<E>(Receiver<Result<E>>);

impl<E> Monitor<E> {
    /// True once the reader has closed the stream, or the work has ended.
    pub(super) fn is_closed(&self) -> bool {
        self.0.is_closed()
    }
}

/// Creates both ends.
pub(super) fn channel<E>(engine: &Engine) -> (EventSender<E>, EventReceiver<E>) {
    let (sender, events) = async_channel::bounded(1);
    let sender = EventSender {
        sender: Some(sender),
        queue: VecDeque::new(),
    };
    let engine = engine.clone();
    (sender, EventReceiver { events, engine })
}

impl<E> EventSender<E> {
    /// Drops all events: the work needs no reader.
    pub(super) fn without_reader() -> Self {
        Self {
            sender: None,
            queue: VecDeque::new(),
        }
    }

    /// Sends an event now, or with a later [`flush`](Self::flush) if there is no room.
    pub(super) fn send(&mut self, event: Result<E>) {
        self.queue.push_back(event);
        self.flush();
    }

    /// Sends an event, replacing an unread one.
    pub(super) fn replace(&self, event: Result<E>) {
        if let Some(sender) = &self.sender {
            // Fails only if the reader has closed the channel.
            let _ = sender.force_send(event);
        }
    }

    /// Sends queued events while there is room. Returns true once the queue is empty.
    pub(super) fn flush(&mut self) -> bool {
        while let Some(event) = self.queue.pop_front() {
            if let Some(sender) = &self.sender
                && let Err(TrySendError::Full(event)) = sender.try_send(event)
            {
                self.queue.push_front(event);
                return false;
            }
        }
        true
    }

    /// True once the reader has closed the channel.
    pub(super) fn is_closed(&self) -> bool {
        self.sender.as_ref().is_some_and(Sender::is_closed)
    }
}

impl<E> EventReceiver<E> {
    /// Shows whether this stream is closed.
    pub(super) fn monitor(&self) -> Monitor<E> {
        Monitor(self.events.clone())
    }

    /// The next event; `None` after the last one or once closed.
    ///
    /// # Errors
    /// The error of the work; no event follows.
    pub async fn next(&self) -> Result<Option<E>> {
        let event = self.events.recv().await.ok().transpose();
        self.engine.wake();
        event
    }

    /// Like [`next`](Self::next), and blocks the calling thread until there is an event.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub fn next_blocking(&self) -> Result<Option<E>> {
        let event = self.events.recv_blocking().ok().transpose();
        self.engine.wake();
        event
    }

    /// Closes the stream, drops the events in it, and ends the work behind it before its next unit.
    pub fn close(&self) {
        self.events.close();
        while self.events.try_recv().is_ok() {}
        self.engine.wake();
    }
}

impl<E> Drop for EventReceiver<E> {
    fn drop(&mut self) {
        self.close();
    }
}
