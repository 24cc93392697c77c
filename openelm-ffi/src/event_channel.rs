//! A channel of events from the worker to one reader. It holds one event; the sender queues the
//! rest.

use std::collections::VecDeque;

use async_channel::{Receiver, Sender, TrySendError};

use crate::{error::Result, worker};

/// The worker's end. It never blocks, so a slow reader does not delay other tasks.
#[derive(Debug)]
pub(crate) struct EventSender<E> {
    sender: Sender<Result<E>>,
    /// Events waiting for room: usually one, rarely two.
    queue: VecDeque<Result<E>>,
}

/// The reader's end.
#[derive(Debug)]
pub(crate) struct EventReceiver<E>(Receiver<Result<E>>);

/// Creates both ends.
pub(crate) fn channel<E>() -> (EventSender<E>, EventReceiver<E>) {
    let (sender, receiver) = async_channel::bounded(1);
    let sender = EventSender {
        sender,
        queue: VecDeque::new(),
    };
    (sender, EventReceiver(receiver))
}

impl<E> EventSender<E> {
    /// Sends an event now, or with a later [`flush`](Self::flush) if there is no room.
    pub(crate) fn send(&mut self, event: Result<E>) {
        self.queue.push_back(event);
        self.flush();
    }

    /// Sends an event, replacing an unread one.
    pub(crate) fn replace(&self, event: Result<E>) {
        // Fails only if the reader has closed the channel.
        let _ = self.sender.force_send(event);
    }

    /// Sends queued events while there is room. Returns true once the queue is empty.
    pub(crate) fn flush(&mut self) -> bool {
        while let Some(event) = self.queue.pop_front() {
            if let Err(TrySendError::Full(event)) = self.sender.try_send(event) {
                self.queue.push_front(event);
                return false;
            }
        }
        true
    }

    /// Returns true once the reader has closed the channel.
    pub(crate) fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }
}

impl<E> EventReceiver<E> {
    /// The next event; `None` after the last one or once closed.
    pub(crate) async fn next(&self) -> Result<Option<E>> {
        let event = self.0.recv().await.ok().transpose();
        worker::wake();
        event
    }

    /// Closes the channel and drops the events in it.
    pub(crate) fn close(&self) {
        self.0.close();
        while self.0.try_recv().is_ok() {}
        worker::wake();
    }
}

impl<E> Drop for EventReceiver<E> {
    fn drop(&mut self) {
        self.close();
    }
}
