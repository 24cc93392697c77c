//! The fine-tuning run.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use serde::{Deserialize, Serialize};

use super::{
    event::{FinetuneEnd, FinetuneEvent},
    options::{FinetuneOptions, PreferenceOptions},
    order::{self, Order},
};
use crate::{
    adapter::Adapter,
    cancel::CancelHandle,
    config::Config,
    data::{
        batch::Batch,
        dataset::{Example, PreferencePair},
    },
    error::{Error, Result},
    mlx::memory,
    model::Model,
    training::{Metrics, Preference, STATE_FILE, Trainer, changed},
};

const BEST: &str = "best";

/// What is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainingData {
    /// Texts, or prompts and completions.
    Examples(Vec<Example>),
    /// Pairs of answers, the first preferred.
    Pairs(Vec<PreferencePair>),
}

/// A fine-tuning run. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Finetune {
    pub(super) trainer: Trainer,
    config: Config,
    pub(super) train: TrainingData,
    valid: Option<TrainingData>,
    pub(super) folder: PathBuf,
    pub(super) options: FinetuneOptions,
    order: Order,
    metrics: Metrics,
    /// Preferences: sums of the chosen and the rejected answers, by pair.
    pub(super) reference: Vec<[f32; 2]>,
    progress: Progress,
    cancel: CancelHandle,
    events: VecDeque<FinetuneEvent>,
    ended: bool,
}

/// What the state file keeps besides the trainer's own.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Progress {
    /// The options and the data, so that no run goes on with others.
    options: String,
    data: String,
    trained_tokens: u64,
    best: Option<(u64, f64)>,
    since_best: u32,
}

impl Finetune {
    /// Begins to train `adapter` on `model`, and to keep its files in `folder`, which is made if
    /// need be.
    ///
    /// # Errors
    /// [`Error::Option`] for an option outside its range, [`Error::Adapter`] if the adapter does not
    /// fit, [`Error::Target`] if the folder holds the state of another run.
    pub fn new(
        model: &Model,
        adapter: Adapter,
        train: TrainingData,
        valid: Option<TrainingData>,
        folder: impl AsRef<Path>,
        options: FinetuneOptions,
    ) -> Result<Self> {
        let mut run = Self::prepare(model, adapter, train, valid, folder.as_ref(), options)?;
        let state = run.folder.join(STATE_FILE);
        if state.exists() {
            return Err(Error::Target {
                path: state,
                problem: "there is a run here already: resume it, or choose another folder".into(),
            });
        }
        fs::create_dir_all(&run.folder).map_err(Error::io(&run.folder))?;
        run.metrics = Metrics::open(&run.folder, 0)?;
        run.measure_reference()?;
        Ok(run)
    }

    /// Goes on with the run in `folder` from its last save: the same arguments lead to the same
    /// bytes as if it had never stopped. `adapter` gives the shape; its numbers come from the file.
    /// `iters` may be another one.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::MissingFile`] if there is no state, [`Error::Target`] if it
    /// was made with other options or data.
    pub fn resume(
        model: &Model,
        adapter: Adapter,
        train: TrainingData,
        valid: Option<TrainingData>,
        folder: impl AsRef<Path>,
        options: FinetuneOptions,
    ) -> Result<Self> {
        let mut run = Self::prepare(model, adapter, train, valid, folder.as_ref(), options)?;
        let state = run.folder.join(STATE_FILE);
        if !state.is_file() {
            return Err(Error::MissingFile {
                path: state,
                problem: "there is no run to resume".into(),
            });
        }
        // At the start the trainer is what the reference was measured with.
        run.measure_reference()?;
        let kept = run.trainer.restore(&state)?;
        let kept: Progress = serde_json::from_value(kept).map_err(|error| Error::Checkpoint {
            path: state.clone(),
            problem: error.to_string(),
        })?;
        let problem = if kept.options != run.progress.options {
            let changed = changed(&kept.options, &run.progress.options);
            format!("the run was begun with other options: {changed}")
        } else if kept.data != run.progress.data {
            "the run was begun with other data".into()
        } else {
            String::new()
        };
        if !problem.is_empty() {
            return Err(Error::Target {
                path: state,
                problem,
            });
        }
        run.progress = kept;
        let iteration = run.trainer.iteration();
        for done in 1..=iteration {
            run.order.replay(done, run.validates_before(done));
        }
        run.metrics = Metrics::open(&run.folder, iteration)?;
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
        options.check()?;
        let order = Order::new(&train, valid.as_ref(), &options)?;
        let progress = Progress {
            // How long it runs changes nothing of what it does until then.
            options: format!(
                "{:?}",
                FinetuneOptions {
                    iters: 0,
                    ..options.clone()
                }
            ),
            data: format!("{:016x}", order::fingerprint(&train, valid.as_ref())),
            ..Progress::default()
        };
        Ok(Self {
            trainer: Trainer::new(model, adapter, options.trainer.clone())?,
            config: model.config().clone(),
            train,
            valid,
            folder: folder.to_path_buf(),
            options,
            order,
            metrics: Metrics::none(),
            reference: Vec::new(),
            progress,
            cancel: CancelHandle::default(),
            events: VecDeque::new(),
            ended: false,
        })
    }

    /// How many numbers are trained.
    pub fn parameter_count(&self) -> u64 {
        self.trainer.parameter_count()
    }

    /// Batches trained on so far.
    pub fn iteration(&self) -> u64 {
        self.trainer.iteration()
    }

    /// Batches in which every row is seen once.
    pub fn batches_per_epoch(&self) -> usize {
        self.order.batches_per_epoch()
    }

    /// The adapter's mean loss on `data`, all of it, in nats: that of a validation.
    ///
    /// # Errors
    /// As the iterator's.
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

    /// The adapter as it stands.
    pub fn adapter(&self) -> Adapter {
        self.trainer.adapter()
    }

    /// Ends the run before its next step, from any thread; what was done is saved first.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    fn advance(&mut self) -> Result<()> {
        let next = self.trainer.iteration() + 1;
        if next > self.options.iters {
            return self.finish(FinetuneEnd::Iterations, false);
        }
        if self.cancel.is_cancelled() {
            return self.finish(FinetuneEnd::Cancelled, true);
        }
        if self.validates_before(next) {
            self.order.before(next);
            self.validate()?;
        }
        self.step()?;
        let done = self.trainer.iteration();
        let last = done == self.options.iters;
        if !self.options.mlx_lm_compat && (last || done.is_multiple_of(self.options.steps_per_eval))
        {
            self.validate()?;
        }
        let patience = self.options.patience;
        if patience.is_some_and(|most| self.progress.since_best >= most) {
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

    /// mlx-lm validates before a step, this crate after it, but for the first.
    fn validates_before(&self, iteration: u64) -> bool {
        let options = &self.options;
        let due = iteration == 1
            || options.mlx_lm_compat
                && (iteration.is_multiple_of(options.steps_per_eval) || iteration == options.iters);
        due && self.valid.is_some()
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
        self.progress.trained_tokens += step.targets as u64;
        let event = FinetuneEvent::Step {
            step,
            tokens_per_second: step.targets as f64 / started.elapsed().as_secs_f64(),
            trained_tokens: self.progress.trained_tokens,
            peak_bytes: memory::peak_bytes()? as u64,
        };
        self.tell(event)
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
        if !loss.is_finite() {
            return Err(Error::Diverged {
                iteration,
                loss: loss as f32,
            });
        }
        let best = self.progress.best.is_none_or(|(_, best)| loss < best);
        if best {
            self.progress.best = Some((iteration, loss));
            self.progress.since_best = 0;
            // Before the first step there is nothing worth keeping.
            if iteration > 0 {
                self.adapter().save(self.folder.join(BEST), &self.config)?;
            }
        } else {
            self.progress.since_best += 1;
        }
        self.tell(FinetuneEvent::Validation {
            iteration,
            loss,
            perplexity: loss.exp(),
            best,
        })
    }

    /// The state first: a run that is killed before the adapter is written makes it again.
    fn save(&mut self) -> Result<()> {
        let progress = serde_json::to_value(&self.progress).map_err(|error| Error::Checkpoint {
            path: self.folder.join(STATE_FILE),
            problem: error.to_string(),
        })?;
        self.trainer
            .save_state(&self.folder.join(STATE_FILE), &progress)?;
        self.adapter().save(&self.folder, &self.config)?;
        self.tell(FinetuneEvent::Saved {
            iteration: self.trainer.iteration(),
        })
    }

    fn finish(&mut self, reason: FinetuneEnd, save: bool) -> Result<()> {
        // A run that was killed between its last state and its last adapter lacks the latter.
        if save || !self.folder.join("adapters.safetensors").is_file() {
            self.save()?;
        } else {
            self.adapter().save(&self.folder, &self.config)?;
        }
        self.ended = true;
        self.tell(FinetuneEvent::Finished {
            iteration: self.trainer.iteration(),
            reason,
            best: self.progress.best,
        })
    }

    fn tell(&mut self, event: FinetuneEvent) -> Result<()> {
        self.metrics.write(&event.line())?;
        self.events.push_back(event);
        Ok(())
    }
}

impl Iterator for Finetune {
    type Item = Result<FinetuneEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        while self.events.is_empty() && !self.ended {
            if let Err(error) = self.advance() {
                self.ended = true;
                self.events.clear();
                return Some(Err(error));
            }
        }
        self.events.pop_front().map(Ok)
    }
}
