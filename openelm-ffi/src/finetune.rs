//! Fine-tuning a loaded model.

use std::sync::Arc;

use openelm_core::{
    CancelHandle, LanguageModel,
    adapter::{Adapter, AdapterKind, AdapterOptions, Keys, LoraOptions, TargetModules},
    finetune::{self, DataOptions, DataSplits, Finetune},
    train::{Optimizer, OptimizerKind, ScheduleOptions, ScheduleShape, TrainerOptions},
};

use crate::{
    engine::Engine,
    error::{EngineError, Result},
    outbox::{self, Inbox, Outbox},
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
    _engine: Arc<Engine>,
    events: Inbox<FinetuneEvent>,
    cancel: CancelHandle,
}

#[uniffi::export]
impl FinetuneRun {
    /// Begins to train a new adapter for `engine`'s model, without the adapters that are active on
    /// it, on the data in `data`, a folder or a file, and to keep it in `folder`. With `resume` the
    /// run in `folder` goes on from its last save.
    ///
    /// # Errors
    /// What is wrong with data and options comes as the first event.
    #[uniffi::constructor]
    pub fn new(
        engine: Arc<Engine>,
        data: String,
        folder: String,
        options: FinetuneOptions,
        resume: bool,
    ) -> Result<Arc<Self>> {
        let (mut out, events) = outbox::channel();
        let cancel = CancelHandle::default();
        let called_off = cancel.clone();
        let number = engine.number();
        worker::submit(move |models, _turn| {
            let begun =
                worker::guard(|| begin(models.model(number)?, &data, &folder, &options, resume));
            match begun {
                Ok(run) => models.tasks.push(Box::new(Running {
                    model: number,
                    run: Some(run),
                    called_off,
                    out,
                })),
                Err(error) => out.send(Err(error)),
            }
        })?;
        Ok(Arc::new(Self {
            _engine: engine,
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
    model: &LanguageModel,
    data: &str,
    folder: &str,
    options: &FinetuneOptions,
    resume: bool,
) -> Result<Finetune> {
    let run = finetune::FinetuneOptions::from(options);
    let how = DataOptions {
        mask_prompt: options.mask_prompt,
        preferences: options.preferences,
        ..DataOptions::default()
    };
    let data = DataSplits::read(data, model.tokenizer(), &run, &how)?;
    let mut network = model.model().clone();
    network.set_adapters(&[])?;
    let defaults = AdapterOptions::default();
    let new = AdapterOptions {
        kind: match options.kind {
            FinetuneKind::Lora => AdapterKind::Lora,
            FinetuneKind::Dora => AdapterKind::Dora,
            FinetuneKind::Full => AdapterKind::Full,
        },
        lora: LoraOptions {
            rank: count(options.rank),
            scale: options.scale,
            dropout: options.dropout,
            ..defaults.lora
        },
        targets: TargetModules {
            num_layers: options.num_layers.map(count),
            keys: options
                .keys
                .clone()
                .map_or(defaults.targets.keys, Keys::Names),
        },
    };
    let adapter = Adapter::new(&network, &new, options.seed)?;
    let valid = data.valid.map(|split| split.data);
    let train = data.train.data;
    Ok(if resume {
        Finetune::resume(&network, adapter, train, valid, folder, run)?
    } else {
        Finetune::new(&network, adapter, train, valid, folder, run)?
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
    out: Outbox<FinetuneEvent>,
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

    fn is_over(&self) -> bool {
        self.out.is_closed()
    }

    fn is_ready(&mut self) -> bool {
        self.out.has_room()
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

    fn fail(&mut self, error: EngineError) {
        self.run = None;
        self.out.send(Err(error));
    }

    fn abort(&mut self, error: EngineError) {
        self.save();
        self.out.replace(Err(error));
    }

    fn end(mut self: Box<Self>, _models: &mut Models) {
        self.save();
    }
}

impl From<&FinetuneOptions> for finetune::FinetuneOptions {
    fn from(options: &FinetuneOptions) -> Self {
        let schedule = ScheduleOptions {
            shape: if options.cosine {
                ScheduleShape::Cosine
            } else {
                ScheduleShape::Constant
            },
            learning_rate: options.learning_rate,
            warmup: options.warmup,
            ..ScheduleOptions::default()
        };
        let accumulated = count(options.grad_accumulation_steps);
        Self {
            trainer: TrainerOptions {
                optimizer: Optimizer {
                    weight_decay: options.weight_decay,
                    ..match options.weight_decay > 0.0 {
                        true => Optimizer::new(OptimizerKind::AdamW),
                        false => Optimizer::default(),
                    }
                },
                schedule: schedule.schedule(options.iters, accumulated),
                grad_accumulation_steps: accumulated,
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
            best_iteration: best.map(|best| best.iteration),
            best_loss: best.map(|best| best.loss),
        },
        _ => return None,
    })
}
