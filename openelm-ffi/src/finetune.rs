//! Fine-tuning of a loaded model.

use std::sync::Arc;

use openelm_core::{
    self as core, CancelHandle,
    adapter::{Adapter, AdapterOptions},
    finetune::{self as core_finetune, DataOptions, DataSplits, Finetune},
};

use crate::{
    error::{Error, Result},
    event_channel::{self, EventReceiver, EventSender},
    finetune_options::FinetuneOptions,
    language_model::LanguageModel,
    worker::{self, Models, Task},
};

/// An event of a [`FinetuneRun`].
#[derive(Debug, Clone, PartialEq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::finetune::FinetuneEvent")]
pub enum FinetuneEvent {
    Step {
        iteration: u64,
        loss: f32,
        targets: u64,
        learning_rate: f32,
        tokens_per_second: f64,
        trained_tokens: u64,
        peak_bytes: u64,
    },
    Validation {
        iteration: u64,
        loss: f64,
        best: bool,
    },
    Saved {
        iteration: u64,
    },
    Finished {
        iteration: u64,
        reason: FinetuneEnd,
        best_iteration: Option<u64>,
        best_loss: Option<f64>,
    },
}

/// The reason why a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::finetune::FinetuneEnd")]
pub enum FinetuneEnd {
    Iterations,
    Patience,
    Cancelled,
}

/// A running fine-tuning. Dropping it saves and ends it.
#[derive(Debug, uniffi::Object)]
pub struct FinetuneRun {
    /// Keeps the model loaded.
    _model: Arc<LanguageModel>,
    events: EventReceiver<FinetuneEvent>,
    cancel: CancelHandle,
}

/// Starts training a new adapter for `model`, without the model's active adapters, on the rows in
/// `data`, a folder or a file, and saves it in `folder`. With `resume` the run in `folder`
/// continues from its last checkpoint.
///
/// # Errors
/// Errors of data and options are the first event.
#[uniffi::export]
pub fn finetune(
    model: Arc<LanguageModel>,
    data: String,
    folder: String,
    options: FinetuneOptions,
    resume: bool,
) -> Result<Arc<FinetuneRun>> {
    let (mut sender, events) = event_channel::channel();
    let cancel = CancelHandle::default();
    let task_cancel = cancel.clone();
    let id = model.id();
    worker::submit(move |models| {
        let begun =
            worker::catch_panic(|| begin(models.model(id)?, &data, &folder, &options, resume));
        match begun {
            Ok(run) => models.tasks.push(Box::new(FinetuneTask {
                model: id,
                run: Some(run),
                cancel: task_cancel,
                sender,
            })),
            Err(error) => sender.send(Err(error)),
        }
    })?;
    Ok(Arc::new(FinetuneRun {
        _model: model,
        events,
        cancel,
    }))
}

#[uniffi::export]
impl FinetuneRun {
    /// The next event; `None` after the last one.
    ///
    /// # Errors
    /// Errors of the run; no event follows.
    pub async fn next(&self) -> Result<Option<FinetuneEvent>> {
        self.events.next().await
    }

    /// Ends the run before its next step. The run is saved and reported in its last events.
    ///
    /// # Errors
    /// Only after a panic.
    pub fn cancel(&self) -> Result<()> {
        self.cancel.cancel();
        worker::wake();
        Ok(())
    }
}

fn begin(
    model: &core::LanguageModel,
    data: &str,
    folder: &str,
    options: &FinetuneOptions,
    resume: bool,
) -> Result<Finetune> {
    let run = core_finetune::FinetuneOptions::from(options);
    let data = worker::without_device(|| {
        DataSplits::read(data, model.tokenizer(), &run, &DataOptions::from(options))
    })?;
    let mut network = model.model().clone();
    network.set_adapters(&[])?;
    let adapter = Adapter::new(&network, &AdapterOptions::from(options), options.seed)?;
    let (train, valid) = (data.train.data, data.valid.map(|split| split.data));
    Ok(if resume {
        Finetune::resume(&network, adapter, train, valid, folder, run)?
    } else {
        Finetune::new(&network, adapter, train, valid, folder, run)?
    })
}

/// A fine-tuning run on the worker's thread.
struct FinetuneTask {
    /// Id of the model.
    model: u64,
    /// `None` once it has failed.
    run: Option<Finetune>,
    cancel: CancelHandle,
    sender: EventSender<FinetuneEvent>,
}

impl FinetuneTask {
    /// Cancels the run, which saves it.
    fn save(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.cancel_handle().cancel();
            // The reader is gone, so an error while saving is dropped.
            run.by_ref().for_each(drop);
        }
    }
}

impl Task for FinetuneTask {
    fn model(&self) -> u64 {
        self.model
    }

    fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    fn is_ready(&mut self) -> bool {
        self.sender.flush()
    }

    fn turn(&mut self, _models: &mut Models) -> bool {
        let Some(run) = &mut self.run else {
            return false;
        };
        if self.cancel.is_cancelled() {
            run.cancel_handle().cancel();
        }
        match run.next() {
            Some(Ok(event)) => {
                if let Some(event) = event_from(event) {
                    self.sender.send(Ok(event));
                }
                true
            }
            Some(Err(error)) => {
                self.fail(error.into());
                true
            }
            None => false,
        }
    }

    fn fail(&mut self, error: Error) {
        self.run = None;
        self.sender.send(Err(error));
    }

    fn abort(&mut self, error: Error) {
        self.save();
        self.sender.replace(Err(error));
    }

    fn end(mut self: Box<Self>, _models: &mut Models) {
        self.save();
    }
}

/// The event for Swift; `None` for an event unknown to this crate.
fn event_from(event: core_finetune::FinetuneEvent) -> Option<FinetuneEvent> {
    Some(match event {
        core_finetune::FinetuneEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => FinetuneEvent::Step {
            iteration: step.iteration,
            loss: step.loss,
            targets: step.targets as u64,
            learning_rate: step.learning_rate,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        },
        core_finetune::FinetuneEvent::Validation {
            iteration,
            loss,
            best,
            ..
        } => FinetuneEvent::Validation {
            iteration,
            loss,
            best,
        },
        core_finetune::FinetuneEvent::Saved { iteration } => FinetuneEvent::Saved { iteration },
        core_finetune::FinetuneEvent::Finished {
            iteration,
            reason,
            best,
        } => FinetuneEvent::Finished {
            iteration,
            reason: match reason {
                core_finetune::FinetuneEnd::Iterations => FinetuneEnd::Iterations,
                core_finetune::FinetuneEnd::Patience => FinetuneEnd::Patience,
                core_finetune::FinetuneEnd::Cancelled => FinetuneEnd::Cancelled,
            },
            best_iteration: best.map(|best| best.iteration),
            best_loss: best.map(|best| best.loss),
        },
        _ => return None,
    })
}
