//! Conversions on the engine's thread.

use std::path::PathBuf;

use super::{
    engine::Engine,
    event_channel::{self, EventReceiver},
    worker::catch_panic,
};
use crate::{
    adapter::Adapter,
    cancel::CancelHandle,
    convert::{ConvertEvent, ConvertOptions, ConvertReport, convert},
    error::Result,
};

/// A conversion that begins.
#[derive(Debug)]
pub struct ConvertRequest {
    /// The model: a folder or a file.
    pub source: PathBuf,
    /// The new folder or file.
    pub target: PathBuf,
    /// Options without an adapter, whose arrays would belong to the caller's thread.
    pub options: ConvertOptions,
    /// Folder of an adapter that is fused.
    pub adapter: Option<PathBuf>,
}

/// An event of a [`ConvertHandle`].
#[derive(Debug)]
pub enum ConvertProgress {
    /// A tensor was written; unread older progress is dropped.
    Written {
        /// Name of the tensor.
        name: String,
        /// Bytes read so far.
        done: u64,
        /// Bytes of all tensors.
        total: u64,
    },
    /// The written model is being compared with its source.
    Verifying {
        /// Bytes compared so far.
        done: u64,
        /// Bytes of all tensors.
        total: u64,
    },
    /// The report; the last event.
    Done(Box<ConvertReport>),
}

/// A running conversion. Dropping it cancels it.
#[derive(Debug)]
pub struct ConvertHandle {
    events: EventReceiver<ConvertProgress>,
    cancel: CancelHandle,
    engine: Engine,
}

impl Engine {
    /// Starts a conversion. Its errors are an event.
    ///
    /// # Errors
    /// [`Error::Unusable`](crate::Error::Unusable).
    pub fn convert(&self, request: ConvertRequest) -> Result<ConvertHandle> {
        let (sender, events) = event_channel::channel(self);
        let cancel = CancelHandle::default();
        let of_work = cancel.clone();
        self.submit_long(move |_| {
            let done = catch_panic(|| {
                let ConvertRequest {
                    source,
                    target,
                    mut options,
                    adapter,
                } = request;
                options.adapter = adapter.map(Adapter::load).transpose()?;
                convert(source, target, &options, &of_work, |event| {
                    sender.replace(Ok(event.into()));
                })
            });
            sender.replace(done.map(|report| ConvertProgress::Done(Box::new(report))));
        })?;
        Ok(ConvertHandle {
            events,
            cancel,
            engine: self.clone(),
        })
    }
}

impl ConvertHandle {
    /// The events.
    pub fn events(&self) -> &EventReceiver<ConvertProgress> {
        &self.events
    }

    /// Cancels the conversion before its next tensor.
    pub fn cancel(&self) {
        self.cancel.cancel();
        self.engine.recheck();
        self.events.close();
    }
}

impl Drop for ConvertHandle {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.engine.recheck();
    }
}

impl From<ConvertEvent<'_>> for ConvertProgress {
    fn from(event: ConvertEvent<'_>) -> Self {
        match event {
            ConvertEvent::Written { name, done, total } => Self::Written {
                name: name.to_owned(),
                done,
                total,
            },
            ConvertEvent::Verifying { done, total } => Self::Verifying { done, total },
        }
    }
}
