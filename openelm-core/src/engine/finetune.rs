//! Fine-tuning on the engine's thread, a batch at a time.

use std::path::PathBuf;

use super::{
    engine::Engine,
    event_channel::{self, EventReceiver, EventSender},
    model::ModelHandle,
    worker::{Worker, catch_panic},
};
use crate::{
    adapter::{Adapter, AdapterOptions},
    cancel::CancelHandle,
    error::{Error, Result},
    training::finetune::{
        DataOptions, DataSplits, Finetune, FinetuneEvent, FinetuneMemory, FinetuneOptions, SavedRun,
    },
};

/// A fine-tuning of a loaded model, without the model's active adapters.
#[derive(Debug, Clone)]
pub struct FinetuneRequest {
    /// Folder or file of the rows.
    pub data: PathBuf,
    /// Folder of the run: adapter and state.
    pub folder: PathBuf,
    /// Options of the run.
    pub run: FinetuneOptions,
    /// Options of the data.
    pub rows: DataOptions,
    /// Options of the new adapter.
    pub adapter: AdapterOptions,
    /// Seed of the new adapter.
    pub seed: u64,
    /// Continue the run in `folder` from its last checkpoint.
    pub resume: bool,
}

/// A running fine-tuning. Dropping it saves and ends it.
#[derive(Debug)]
pub struct FinetuneHandle {
    /// Keeps the model loaded.
    model: ModelHandle,
    events: EventReceiver<FinetuneEvent>,
    cancel: CancelHandle,
}

impl ModelHandle {
    /// Starts training an adapter. Errors of data and options are the first event.
    ///
    /// # Errors
    /// [`Error::Unusable`].
    pub fn finetune(&self, request: FinetuneRequest) -> Result<FinetuneHandle> {
        let (mut sender, events) = event_channel::channel(self.engine());
        let cancel = CancelHandle::default();
        let (id, of_task) = (self.id(), cancel.clone());
        self.engine().submit_long(move |worker| {
            // The request may continue one of them.
            worker.end_cancelled_trainings();
            match catch_panic(|| begin(worker, id, request)) {
                Ok(run) => worker.with_state(|state| {
                    state.finetunes.push_back(FinetuneTask {
                        model: id,
                        run: Some(run),
                        cancel: of_task,
                        sender,
                    });
                }),
                Err(error) => sender.send(Err(error)),
            }
        })?;
        Ok(FinetuneHandle {
            model: self.clone(),
            events,
            cancel,
        })
    }
}

impl Engine {
    /// The fine-tuning run in `folder` that can be resumed, as [`SavedRun::find`], once the runs
    /// that were cancelled are saved.
    ///
    /// # Errors
    /// As [`SavedRun::find`].
    pub async fn saved_run(&self, folder: PathBuf) -> Result<Option<SavedRun>> {
        let (sender, receiver) = async_channel::bounded(1);
        self.submit_long(move |worker| {
            worker.end_cancelled_trainings();
            let _ = sender.try_send(catch_panic(|| SavedRun::find(folder)));
        })?;
        receiver.recv().await.unwrap_or(Err(Error::Unusable))
    }
}

impl ModelHandle {
    /// An upper estimate of the memory of a fine-tuning beside the model's weights.
    ///
    /// # Errors
    /// [`Error::Option`] for options of the adapter that do not fit; [`Error::Unloaded`].
    pub async fn finetune_memory(
        &self,
        run: FinetuneOptions,
        rows: DataOptions,
        adapter: AdapterOptions,
    ) -> Result<FinetuneMemory> {
        let id = self.id();
        let estimate = self.engine().call(move |state| {
            let mut network = state.model(id)?.model().clone();
            network.set_adapters(&[])?;
            // Its arrays are not computed.
            let adapter = Adapter::new(&network, &adapter, 0)?;
            FinetuneMemory::of(&network, &adapter, &run, &rows)
        });
        estimate.await
    }
}

impl FinetuneHandle {
    /// The events.
    pub fn events(&self) -> &EventReceiver<FinetuneEvent> {
        &self.events
    }

    /// Ends the run before its next batch. The run is saved and reported in its last events.
    pub fn cancel(&self) {
        self.cancel.cancel();
        self.model.engine().wake();
    }
}

fn begin(worker: &Worker, id: u64, request: FinetuneRequest) -> Result<Finetune> {
    let (mut network, tokenizer) = worker.with_state(|state| {
        let model = state.model(id)?;
        Ok::<_, Error>((model.model().clone(), model.tokenizer().clone()))
    })?;
    let FinetuneRequest {
        data,
        folder,
        run,
        rows,
        ..
    } = request;
    let data = worker.without_device(|| DataSplits::read(data, &tokenizer, &run, &rows))?;
    network.set_adapters(&[])?;
    let adapter = Adapter::new(&network, &request.adapter, request.seed)?;
    let (train, valid) = (data.train.data, data.valid.map(|split| split.data));
    if request.resume {
        Finetune::resume(&network, adapter, train, valid, folder, run)
    } else {
        Finetune::new(&network, adapter, train, valid, folder, run)
    }
}

/// A fine-tuning run on the engine's thread.
#[derive(Debug)]
pub(super) struct FinetuneTask {
    /// Id of the model.
    model: u64,
    /// `None` once it has ended.
    run: Option<Finetune>,
    cancel: CancelHandle,
    sender: EventSender<FinetuneEvent>,
}

impl FinetuneTask {
    pub(super) fn model(&self) -> u64 {
        self.model
    }

    /// True if the run was cancelled, or its reader has closed the stream.
    pub(super) fn is_cancelled(&self) -> bool {
        self.sender.is_closed() || self.cancel.is_cancelled()
    }

    /// True until the run has ended; its last events may be unread.
    pub(super) fn is_running(&self) -> bool {
        self.run.is_some()
    }

    /// True if the run can go on: its reader has room, or has closed the stream.
    pub(super) fn is_ready(&mut self) -> bool {
        self.sender.is_closed() || self.sender.flush()
    }

    /// Runs one unit: a batch, a validation, a save. Returns false once the run has ended.
    pub(super) fn unit(&mut self) -> bool {
        if self.sender.is_closed() {
            self.save();
            return false;
        }
        let Some(run) = &mut self.run else {
            return false;
        };
        if self.cancel.is_cancelled() {
            run.cancel_handle().cancel();
        }
        match catch_panic(|| run.next().transpose()) {
            Ok(Some(event)) => self.sender.send(Ok(event)),
            Ok(None) => self.run = None,
            Err(error) => {
                self.run = None;
                self.sender.send(Err(error));
            }
        }
        true
    }

    /// Saves the run and ends it: its model was unloaded.
    pub(super) fn abort(&mut self) {
        self.save();
        self.sender.replace(Err(Error::Unloaded));
    }

    /// Cancels the run, which saves it.
    fn save(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.cancel_handle().cancel();
            // The reader is gone, so an error while saving is dropped.
            let _ = catch_panic(|| {
                run.by_ref().for_each(drop);
                Ok(())
            });
        }
    }
}
