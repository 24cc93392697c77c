//! The fine-tuning run.

use std::{path::Path, time::Instant};

use super::{
    event::{FinetuneEnd, FinetuneEvent},
    options::{FinetuneOptions, PreferenceOptions},
    order::Order,
    reference::REFERENCE,
    resume_key::{resume_key, validation_key},
    training_data::TrainingData,
};
use crate::{
    adapter::Adapter,
    cancel::CancelHandle,
    config::Config,
    data::batch::Batch,
    error::{Error, Result},
    files::check_inputs,
    gate::pause_point,
    mlx::{Device, Dtype, memory},
    model::Model,
    training::{
        Preference, Trainer,
        run::{Advance, Run, next_event},
        state::STATE_FILE,
        state_memory,
    },
};

const BEST: &str = "best";
const ADAPTER: &str = "adapters.safetensors";
/// Files of a run's folder, apart from `metrics.jsonl`.
const FILES: [&str; 4] = [ADAPTER, "adapter_config.json", STATE_FILE, REFERENCE];

/// A fine-tuning run. Not `Send`: it belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Finetune {
    pub(super) trainer: Trainer,
    config: Config,
    pub(super) train: TrainingData,
    valid: Option<TrainingData>,
    pub(super) options: FinetuneOptions,
    order: Order,
    /// Preferences: log-probability sums of the chosen and the rejected answer of each pair.
    pub(super) reference: Vec<[f32; 2]>,
    pub(super) run: Run<FinetuneEvent>,
}

impl Finetune {
    /// Starts to train `adapter` on `model`, with files in `folder`, which is created if
    /// needed.
    ///
    /// # Errors
    /// [`Error::Option`](crate::error::Error::Option) for an option out of range,
    /// [`Error::Adapter`](crate::error::Error::Adapter) if the adapter does not fit,
    /// [`Error::Destination`](crate::error::Error::Destination) if the folder holds a run, its
    /// results, the folder of `adapter` or files of another program that the run would replace, or
    /// another process writes there.
    pub fn new(
        model: &Model,
        adapter: Adapter,
        train: TrainingData,
        valid: Option<TrainingData>,
        folder: impl AsRef<Path>,
        options: FinetuneOptions,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        let origin = adapter.origin.as_deref();
        check_inputs(folder, origin.map(|origin| ("adapter", origin)))?;
        let mut run = Self::prepare(model, adapter, train, valid, folder, options)?;
        run.run.begin(&[REFERENCE])?;
        if let Err(error) = run.measure_reference(false) {
            run.run.discard();
            return Err(error);
        }
        Ok(run)
    }

    /// Continues the run in `folder` from its last save: the same arguments give the same bytes as
    /// an uninterrupted run. `adapter` gives the shapes; the values are read from the file.
    ///
    /// A run that ended before its first save starts again: if `folder` does not exist, or has
    /// nothing but the files that a run writes before, this is [`new`](Self::new), and
    /// [`iteration`](Self::iteration) is 0.
    ///
    /// The base model, and options that change the trained weights, must be those of the saved run.
    /// `iters` (with a
    /// constant schedule), `save_every`, `steps_per_eval`, `val_batches`, `patience`,
    /// `grad_checkpoint` and the validation data may change.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::MissingFile`](crate::error::Error::MissingFile) if there is
    /// no state but other files, [`Error::OtherRun`](crate::error::Error::OtherRun) if it has other options or
    /// data, [`Error::Checkpoint`](crate::error::Error::Checkpoint) if it is malformed or of an
    /// older version.
    pub fn resume(
        model: &Model,
        adapter: Adapter,
        train: TrainingData,
        valid: Option<TrainingData>,
        folder: impl AsRef<Path>,
        options: FinetuneOptions,
    ) -> Result<Self> {
        let mut run = Self::prepare(model, adapter, train, valid, folder.as_ref(), options)?;
        if !run.run.is_saved() {
            run.run.begin_again(&[BEST, REFERENCE])?;
            run.measure_reference(false)?;
            return Ok(run);
        }
        run.run.load_progress()?;
        // Before the restore, the trainer is in the state of the reference.
        run.measure_reference(true)?;
        run.trainer.restore(&run.run.state())?;
        let iteration = run.trainer.iteration();
        for done in 1..=iteration {
            run.order.replay(done, run.validates_before(done));
        }
        let validates = run.validates_before(iteration + 1);
        run.run.continue_metrics(iteration, validates)?;
        Ok(run)
    }

    fn prepare(
        model: &Model,
        adapter: Adapter,
        train: TrainingData,
        valid: Option<TrainingData>,
        folder: &Path,
        options: FinetuneOptions,
    ) -> Result<Self> {
        check_dtype(model)?;
        options.check()?;
        options.check_sizes(&train, model.config())?;
        if options.patience.is_some() && valid.is_none() {
            return Err(Error::option("patience", "requires validation data"));
        }
        adapter.check_savable()?;
        state_memory::check_fits(adapter.parameter_count(), &options.trainer)?;
        let order = Order::new(&train, valid.as_ref(), &options)?;
        let key = resume_key(model, &options, &adapter, &train, valid.as_ref())?;
        let validation = validation_key(&options, valid.as_ref());
        let mut run = Run::new(folder, true, key, validation);
        run.progress.starts_from = Some(adapter.origin.is_some());
        run.check_places(&FILES, &[BEST])?;
        Ok(Self {
            trainer: Trainer::new(model, adapter, options.trainer.clone())?,
            config: model.config().clone(),
            train,
            valid,
            options,
            order,
            reference: Vec::new(),
            run,
        })
    }

    /// Number of trained parameters.
    pub fn parameter_count(&self) -> u64 {
        self.trainer.parameter_count()
    }

    /// Batches trained on so far.
    pub fn iteration(&self) -> u64 {
        self.trainer.iteration()
    }

    /// Batches per epoch, in which every row occurs once.
    pub fn batches_per_epoch(&self) -> usize {
        self.order.batches_per_epoch()
    }

    /// Mean loss of the adapter on all of `data`, in nats, as in a validation.
    ///
    /// # Errors
    /// As for the iterator.
    pub fn evaluate(&self, data: &TrainingData) -> Result<f64> {
        let rows = match data {
            TrainingData::Examples(examples) => examples.len(),
            TrainingData::Pairs(pairs) => pairs.len(),
        };
        let rows: Vec<usize> = (0..rows).collect();
        let batches = rows.chunks(self.options.batch_size);
        let batches: Vec<Batch> = batches.map(|rows| self.options.batch(data, rows)).collect();
        self.trainer.evaluate(&batches)
    }

    /// The adapter with its current weights.
    pub fn adapter(&self) -> Adapter {
        self.trainer.adapter()
    }

    /// A handle that ends the run before its next step, from any thread; its progress is saved.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.run.cancel_handle()
    }

    /// mlx-lm validates before a step, this crate after it, except for the first.
    fn validates_before(&self, iteration: u64) -> bool {
        let options = &self.options;
        let due = iteration == 1
            || options.mlx_lm_compat
                && (iteration.is_multiple_of(options.steps_per_eval) || iteration == options.iters);
        due && self.valid.is_some()
    }

    fn is_patience_over(&self) -> bool {
        let patience = self.options.patience;
        patience.is_some_and(|most| self.run.since_best() >= most)
    }

    fn step(&mut self) -> Result<()> {
        let started = Instant::now();
        let rows = self.order.next(self.trainer.iteration() + 1);
        let batch = self.options.batch(&self.train, &rows);
        let step = match &self.train {
            TrainingData::Examples(_) => self.trainer.step(&batch)?,
            TrainingData::Pairs(_) => {
                let side = |i: usize| rows.iter().map(move |&row| (row, i));
                let sums = side(0).chain(side(1));
                let sums = sums.filter_map(|(row, i)| self.reference.get(row).map(|r| r[i]));
                let PreferenceOptions { loss, beta } = self.options.preference;
                let preference = Preference {
                    loss,
                    beta,
                    reference: sums.collect(),
                };
                self.trainer.step_preference(&batch, &preference)?
            }
        };
        self.run.progress.trained_tokens += step.targets as u64;
        let event = FinetuneEvent::Step {
            step,
            tokens_per_second: step.targets as f64 / started.elapsed().as_secs_f64(),
            trained_tokens: self.run.progress.trained_tokens,
            peak_bytes: memory::peak_bytes()? as u64,
        };
        self.run.emit(event)
    }

    fn validate(&mut self) -> Result<()> {
        let Some(valid) = &self.valid else {
            return Ok(());
        };
        let batches = self.order.validation();
        let most = self.options.val_batches.unwrap_or(usize::MAX);
        let batches = batches.iter().take(most);
        let batches = batches.map(|rows| self.options.batch(valid, rows));
        let batches: Vec<Batch> = batches.collect();
        let loss = self.trainer.evaluate(&batches)?;
        let iteration = self.trainer.iteration();
        let best = self.run.record_validation(iteration, loss)?;
        // Before the first step there is nothing to save.
        if best && iteration > 0 {
            self.adapter()
                .write(&self.run.folder().join(BEST), &self.config)?;
        }
        self.run.emit(FinetuneEvent::Validation {
            iteration,
            loss,
            perplexity: loss.exp(),
            best,
        })
    }

    /// Writes the state first: if the run is killed before the adapter is written, resume writes
    /// it.
    fn save(&mut self) -> Result<()> {
        self.run.save_state(&self.trainer)?;
        self.adapter().write(self.run.folder(), &self.config)?;
        self.run.emit(FinetuneEvent::Saved {
            iteration: self.trainer.iteration(),
        })
    }

    fn finish(&mut self, reason: FinetuneEnd, save: bool) -> Result<()> {
        // A run that was killed between the last state and the last adapter lacks the adapter.
        if save || !self.run.folder().join(ADAPTER).is_file() {
            self.save()?;
        } else {
            self.adapter().write(self.run.folder(), &self.config)?;
        }
        self.run.finish(FinetuneEvent::Finished {
            iteration: self.trainer.iteration(),
            reason,
            best: self.run.best(),
        })
    }
}

/// Refuses a float16 model on a GPU: without loss scaling, gradients vanish in its range.
fn check_dtype(model: &Model) -> Result<()> {
    if model.dtype() == Dtype::Float16 && Device::current()? == Device::Gpu {
        return Err(Error::Dtype {
            dtype: Dtype::Float16.to_string(),
            problem: "gradients vanish in its range; load the model in bfloat16 to train it".into(),
        });
    }
    Ok(())
}

impl Advance for Finetune {
    type Event = FinetuneEvent;

    fn run(&mut self) -> &mut Run<FinetuneEvent> {
        &mut self.run
    }

    fn advance(&mut self) -> Result<()> {
        let next = self.trainer.iteration() + 1;
        if next > self.options.iters {
            return self.finish(FinetuneEnd::Iterations, false);
        }
        // The saved run may have ended for this reason.
        if self.is_patience_over() {
            return self.finish(FinetuneEnd::Patience, false);
        }
        if self.run.is_cancelled() {
            return self.finish(FinetuneEnd::Cancelled, true);
        }
        if self.validates_before(next) {
            self.order.before(next);
            self.validate()?;
            // The last loss was read: nothing is in progress.
            pause_point(&CancelHandle::default(), || Ok(()))?;
        }
        self.step()?;
        let done = self.trainer.iteration();
        let last = done == self.options.iters;
        if !self.options.mlx_lm_compat && (last || done.is_multiple_of(self.options.steps_per_eval))
        {
            self.validate()?;
        }
        if self.is_patience_over() {
            return self.finish(FinetuneEnd::Patience, true);
        }
        if last {
            return self.finish(FinetuneEnd::Iterations, true);
        }
        if done.is_multiple_of(self.options.save_every) {
            self.save()?;
        }
        Ok(())
    }
}

impl Iterator for Finetune {
    type Item = Result<FinetuneEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        next_event(self)
    }
}
