//! Fine-tuning a loaded model.

use std::{path::Path, sync::Arc};

use openelm_core::{
    self as core, CancelHandle,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    dataset::{DataFolder, Dataset, DatasetOptions, PreferenceDataset},
    finetune::{self, Finetune, TrainingData},
    train::{Optimizer, OptimizerKind, Schedule, ScheduleKind, TrainerOptions},
};

use crate::{
    error::{Error, Result},
    event_channel::{self, EventReceiver, EventSender},
    language_model::LanguageModel,
    worker::{self, Models, Task},
};

/// What is trained.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::adapter::AdapterKind")]
pub enum FinetuneKind {
    Lora,
    Dora,
    Full,
}

/// Options of a fine-tuning: those of `openelm_core::finetune`, `LoraOptions`, `DatasetOptions` and
/// `TrainerOptions`. The learning rate is constant, or with `cosine` falls to 0 along a cosine.
#[derive(Debug, Clone, PartialEq, uniffi::Record)]
#[allow(missing_docs, reason = "as the core's fields of these names")]
pub struct FinetuneOptions {
    pub kind: FinetuneKind,
    pub rank: u64,
    pub scale: f32,
    pub dropout: f32,
    pub num_layers: Option<u64>,
    pub keys: Option<Vec<String>>,
    pub iters: u64,
    pub batch_size: u64,
    pub max_seq_length: u64,
    pub mask_prompt: bool,
    pub preferences: bool,
    pub learning_rate: f64,
    pub warmup: u64,
    pub cosine: bool,
    pub weight_decay: f32,
    pub grad_accumulation_steps: u64,
    pub grad_checkpoint: bool,
    pub clip_norm: Option<f32>,
    pub steps_per_eval: u64,
    pub val_batches: Option<u64>,
    pub save_every: u64,
    pub patience: Option<u32>,
    pub seed: u64,
}

/// What a [`FinetuneRun`] tells.
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

/// As `openelm_core::finetune::FinetuneEnd`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, uniffi::Enum)]
#[allow(missing_docs, reason = "as openelm_core::finetune::FinetuneEnd")]
pub enum FinetuneEnd {
    Iterations,
    Patience,
    Cancelled,
}

/// A fine-tuning under way. Dropping it ends it; what was done is saved first.
#[derive(Debug, uniffi::Object)]
pub struct FinetuneRun {
    /// Keeps the model loaded.
    _model: Arc<LanguageModel>,
    events: EventReceiver<FinetuneEvent>,
    cancel: CancelHandle,
}

#[uniffi::export]
impl FinetuneRun {
    /// Begins to train a new adapter for `model`'s model, without the adapters that are active on
    /// it, on the data in `data`, a folder or a file, and to keep it in `folder`. With `resume` the
    /// run in `folder` goes on from its last save.
    ///
    /// # Errors
    /// What is wrong with data and options comes as the first event.
    #[uniffi::constructor]
    pub fn new(
        model: Arc<LanguageModel>,
        data: String,
        folder: String,
        options: FinetuneOptions,
        resume: bool,
    ) -> Result<Arc<Self>> {
        let (mut out, events) = event_channel::channel();
        let cancel = CancelHandle::default();
        let called_off = cancel.clone();
        let id = model.id();
        worker::submit(move |models, _guard| {
            let begun =
                worker::catch_panic(|| begin(models.model(id)?, &data, &folder, &options, resume));
            match begun {
                Ok(run) => models.tasks.push(Box::new(Running {
                    model: id,
                    run: Some(run),
                    called_off,
                    out,
                })),
                Err(error) => out.send(Err(error)),
            }
        })?;
        Ok(Arc::new(Self {
            _model: model,
            events,
            cancel,
        }))
    }

    /// The next event, `None` after the last one.
    ///
    /// # Errors
    /// What went wrong; nothing comes after it.
    pub async fn next(&self) -> Result<Option<FinetuneEvent>> {
        self.events.next().await
    }

    /// Ends the run before its next step; it is saved, and says so in its last events.
    ///
    /// # Errors
    /// None but a panic.
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
    let data_folder = DataFolder::open(data)?;
    let train = data_folder.train.ok_or_else(|| core::Error::MissingFile {
        path: data.into(),
        problem: "no training data: train.jsonl or train.txt".into(),
    })?;
    let train = read(&train, model, options)?;
    let valid = data_folder.valid.map(|file| read(&file, model, options));
    let valid = valid.transpose()?;
    let mut network = model.model().clone();
    network.set_adapters(&[])?;
    let targets = TargetModules {
        num_layers: options.num_layers.map(count),
        keys: options
            .keys
            .clone()
            .map_or(Keys::AllProjections, Keys::Names),
    };
    let adapter = match options.kind {
        FinetuneKind::Full => Adapter::full(&network, &targets)?,
        kind => {
            let lora = LoraOptions {
                rank: count(options.rank),
                scale: options.scale,
                dropout: options.dropout,
                dora: kind == FinetuneKind::Dora,
                tied_head: false,
            };
            Adapter::lora(&network, &targets, &lora, options.seed)?
        }
    };
    let start = match resume {
        true => Finetune::resume,
        false => Finetune::new,
    };
    Ok(start(
        &network,
        adapter,
        train,
        valid,
        folder,
        options.into(),
    )?)
}

fn read(
    file: &Path,
    model: &core::LanguageModel,
    options: &FinetuneOptions,
) -> Result<TrainingData> {
    let how = DatasetOptions {
        max_length: count(options.max_seq_length),
        mask_prompt: options.mask_prompt,
        ..DatasetOptions::default()
    };
    Ok(match options.preferences {
        true => {
            let read = PreferenceDataset::read(file, model.tokenizer(), &how)?;
            TrainingData::Pairs(read.pairs().to_vec())
        }
        false => {
            let read = Dataset::read(file, model.tokenizer(), &how)?;
            TrainingData::Examples(read.examples().to_vec())
        }
    })
}

fn count(number: u64) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// A fine-tuning on the worker's thread.
struct Running {
    model: u64,
    /// `None` once it has failed.
    run: Option<Finetune>,
    called_off: CancelHandle,
    out: EventSender<FinetuneEvent>,
}

impl Running {
    /// Ends the run as a cancelled one, which saves it.
    fn save(&mut self) {
        if let Some(mut run) = self.run.take() {
            run.cancel_handle().cancel();
            // Whoever would hear of a failure has gone.
            run.by_ref().for_each(drop);
        }
    }
}

impl Task for Running {
    fn model(&self) -> u64 {
        self.model
    }

    fn is_closed(&self) -> bool {
        self.out.is_closed()
    }

    fn is_ready(&mut self) -> bool {
        self.out.flush()
    }

    fn turn(&mut self, _models: &mut Models) -> bool {
        let Some(run) = &mut self.run else {
            return false;
        };
        if self.called_off.is_cancelled() {
            run.cancel_handle().cancel();
        }
        match run.next() {
            Some(Ok(event)) => {
                if let Some(event) = told(event) {
                    self.out.send(Ok(event));
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
        self.out.send(Err(error));
    }

    fn abort(&mut self, error: Error) {
        self.save();
        self.out.replace(Err(error));
    }

    fn end(mut self: Box<Self>, _models: &mut Models) {
        self.save();
    }
}

impl From<&FinetuneOptions> for finetune::FinetuneOptions {
    fn from(options: &FinetuneOptions) -> Self {
        let accumulated = options.grad_accumulation_steps.max(1);
        let updates = (options.iters / accumulated).saturating_sub(options.warmup);
        let kind = match options.cosine {
            true => ScheduleKind::Cosine {
                end: 0.0,
                steps: updates.max(1),
            },
            false => ScheduleKind::Constant,
        };
        Self {
            trainer: TrainerOptions {
                optimizer: Optimizer {
                    weight_decay: options.weight_decay,
                    ..match options.weight_decay > 0.0 {
                        true => Optimizer::new(OptimizerKind::AdamW),
                        false => Optimizer::default(),
                    }
                },
                schedule: Schedule {
                    kind,
                    learning_rate: options.learning_rate,
                    warmup: options.warmup,
                    warmup_init: 0.0,
                },
                grad_accumulation_steps: count(options.grad_accumulation_steps),
                clip_norm: options.clip_norm,
                grad_checkpoint: options.grad_checkpoint,
                seed: options.seed,
                ..TrainerOptions::default()
            },
            iters: options.iters,
            batch_size: count(options.batch_size),
            max_seq_length: count(options.max_seq_length),
            steps_per_eval: options.steps_per_eval,
            val_batches: options.val_batches.map(count),
            save_every: options.save_every,
            patience: options.patience,
            ..Self::default()
        }
    }
}

/// The event; `None` for one that this crate does not know.
fn told(event: finetune::FinetuneEvent) -> Option<FinetuneEvent> {
    Some(match event {
        finetune::FinetuneEvent::Step {
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
        finetune::FinetuneEvent::Validation {
            iteration,
            loss,
            best,
            ..
        } => FinetuneEvent::Validation {
            iteration,
            loss,
            best,
        },
        finetune::FinetuneEvent::Saved { iteration } => FinetuneEvent::Saved { iteration },
        finetune::FinetuneEvent::Finished {
            iteration,
            reason,
            best,
        } => FinetuneEvent::Finished {
            iteration,
            reason: match reason {
                finetune::FinetuneEnd::Iterations => FinetuneEnd::Iterations,
                finetune::FinetuneEnd::Patience => FinetuneEnd::Patience,
                finetune::FinetuneEnd::Cancelled => FinetuneEnd::Cancelled,
            },
            best_iteration: best.map(|(iteration, _)| iteration),
            best_loss: best.map(|(_, loss)| loss),
        },
        _ => return None,
    })
}
