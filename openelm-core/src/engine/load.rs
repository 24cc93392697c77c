//! Loading a model on the engine's thread.

use std::path::PathBuf;

use super::{
    engine::Engine,
    event_channel::{self, EventReceiver},
    model::ModelHandle,
    state::{Loaded, next_id},
    worker::{Worker, catch_panic},
};
use crate::{
    cancel::CancelHandle,
    error::{Error, Result},
    generation::{LanguageModel, LoadOptions, PrefixCache},
};

/// An event of a [`LoadHandle`].
#[derive(Debug)]
pub enum LoadEvent {
    /// Weights were read; an unread older progress is dropped.
    Progress {
        /// Bytes read so far.
        read: u64,
        /// Bytes of all weights.
        total: u64,
    },
    /// The model; the last event.
    Loaded(ModelHandle),
}

/// A running load. Dropping it cancels it.
#[derive(Debug)]
pub struct LoadHandle {
    events: EventReceiver<LoadEvent>,
    cancel: CancelHandle,
    engine: Engine,
}

impl Engine {
    /// Starts loading the model in the folder `path`. Errors of its files are an event.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn load(&self, path: impl Into<PathBuf>, options: LoadOptions) -> Result<LoadHandle> {
        let (path, cancel, engine) = (path.into(), CancelHandle::default(), self.clone());
        let (sender, events) = event_channel::channel(self);
        let of_load = cancel.clone();
        self.submit_long(move |worker| {
            let progress = |read, total| {
                sender.replace(Ok(LoadEvent::Progress { read, total }));
            };
            let loaded = catch_panic(|| {
                let model = LanguageModel::load_cancellable(path, &options, &of_load, progress)?;
                add(worker, engine, model)
            });
            sender.replace(loaded.map(LoadEvent::Loaded));
        })?;
        Ok(LoadHandle {
            events,
            cancel,
            engine: self.clone(),
        })
    }

    /// Loads the model in the folder `path`, and blocks the calling thread until it is loaded.
    ///
    /// # Errors
    /// Errors of the model's files, [`Error::Unusable`].
    pub fn load_blocking(
        &self,
        path: impl Into<PathBuf>,
        options: LoadOptions,
    ) -> Result<ModelHandle> {
        let load = self.load(path, options)?;
        loop {
            match load.events.next_blocking()? {
                Some(LoadEvent::Progress { .. }) => {}
                Some(LoadEvent::Loaded(model)) => return Ok(model),
                None => return Err(Error::Cancelled),
            }
        }
    }
}

impl LoadHandle {
    /// The events.
    pub fn events(&self) -> &EventReceiver<LoadEvent> {
        &self.events
    }

    /// Cancels the load before its next tensor.
    pub fn cancel(&self) {
        self.cancel.cancel();
        self.engine.recheck();
        self.events.close();
    }
}

impl Drop for LoadHandle {
    fn drop(&mut self) {
        self.cancel.cancel();
        self.engine.recheck();
    }
}

fn add(worker: &Worker, engine: Engine, model: LanguageModel) -> Result<ModelHandle> {
    let id = next_id();
    let handle = ModelHandle::new(engine, &model, id)?;
    let adapters = handle.shared_adapters();
    let loaded = Loaded {
        model,
        adapters,
        prefixes: PrefixCache::default(),
    };
    worker.with_state(|state| state.models.insert(id, loaded));
    Ok(handle)
}
