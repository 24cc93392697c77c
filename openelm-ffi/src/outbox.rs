//! What the worker has for a reader: a channel of one event, and what waits for room in it.

use std::collections::VecDeque;

use async_channel::{Receiver, Sender, TrySendError};

use crate::{error::Result, worker};

/// The worker's end. It never waits: a reader that does not read holds up nobody else.
#[derive(Debug)]
pub(crate) struct Outbox<E> {
    sender: Sender<Result<E>>,
    /// One event, seldom two.
    waiting: VecDeque<Result<E>>,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct Inbox<E>(Receiver<Result<E>>);

/// Both ends.
pub(crate) fn channel<E>() -> (Outbox<E>, Inbox<E>) {
    let (sender, receiver) = async_channel::bounded(1);
    let outbox = Outbox {
        sender,
        waiting: VecDeque::new(),
    };
    (outbox, Inbox(receiver))
}

impl<E> Outbox<E> {
    /// Sends an event, once there is room.
    pub(crate) fn send(&mut self, event: Result<E>) {
        self.waiting.push_back(event);
        self.has_room();
    }

    /// Sends an event in the place of one that was not read.
    pub(crate) fn replace(&self, event: Result<E>) {
        let _ = self.sender.force_send(event);
    }

    /// Whether there is nothing left to be sent.
    pub(crate) fn has_room(&mut self) -> bool {
        while let Some(event) = self.waiting.pop_front() {
            if let Err(TrySendError::Full(event)) = self.sender.try_send(event) {
                self.waiting.push_front(event);
                return false;
            }
        }
        true
    }

    /// Whether the reader has gone.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl<E> Inbox<E> {
    /// The next event, `None` after the last or once closed.
    pub(crate) async fn next(&self) -> Result<Option<E>> {
        let event = self.0.recv().await.ok().transpose();
        worker::wake();
        event
    }

    /// Wants no more, not even what is there.
    pub(crate) fn close(&self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
        worker::wake();
    }
}

impl<E> Drop for Inbox<E> {
    fn drop(&mut self) {
        self.close();
    }
}
