//! Fine-tuning as a job: data in an order of its own, validation, saving, and exact resume.
//!
//! [`Finetune`] is an iterator of events; whoever pulls it sets its pace, and pauses it by not
//! pulling. In its folder it keeps
//!
//! - `adapters.safetensors`, `adapter_config.json`: the adapter at the last save, as mlx-lm has it;
//! - `best/`: the same of the best validation;
//! - `training_state.safetensors`: all that a run that was killed needs to end with the same bytes;
//! - `metrics.jsonl`: a line for every step and validation;
//! - `reference.safetensors`: preferences only, the log-probabilities to measure against.

mod order;

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use mlx_rs::Array;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::{
    adapter::Adapter,
    batches::{Batch, Padding},
    cancel::CancelHandle,
    config::Config,
    dataset::{Example, PreferencePair},
    error::{Error, Result},
    memory,
    metrics::Metrics,
    model::Model,
    tensor_file::{self, Tensors},
    train::{Preference, PreferenceLoss, Step, Trainer, TrainerOptions},
};
use order::Order;

const STATE: &str = "training_state.safetensors";
const REFERENCE: &str = "reference.safetensors";
const BEST: &str = "best";

/// What is trained on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TrainingData {
    /// Texts, or prompts and completions.
    Examples(Vec<Example>),
    /// Pairs of answers, the first preferred.
    Pairs(Vec<PreferencePair>),
}

/// How a [`Finetune`] runs.
#[derive(Debug, Clone, PartialEq)]
pub struct FinetuneOptions {
    /// How each step is made.
    pub trainer: TrainerOptions,
    /// Batches to train on, all in all. Default 1,000.
    pub iters: u64,
    /// Rows (or pairs) of a batch. Default 4.
    pub batch_size: usize,
    /// The most tokens of a row. Default 2,048.
    pub max_seq_length: usize,
    /// Iterations between validations. Default 200. There is one before the first step, and one
    /// after the last.
    pub steps_per_eval: u64,
    /// The most batches of a validation; `None` all. Default 25.
    pub val_batches: Option<usize>,
    /// Iterations between saves. Default 100. The last iteration is saved, too.
    pub save_every: u64,
    /// Validations in a row without a better loss that end the run. Default none do.
    pub patience: Option<u32>,
    /// Preferences: the loss and its β. Default sigmoid, 0.01.
    pub preference: (PreferenceLoss, f32),
    /// Batches, masks and the times of validation as mlx-lm's `lora` has them, to compare with it.
    /// Its defects come along: a pad counts as a target, rows do not meet rows of their length,
    /// and those that fill no batch are never seen.
    pub mlx_lm_compat: bool,
}

impl Default for FinetuneOptions {
    fn default() -> Self {
        Self {
            trainer: TrainerOptions::default(),
            iters: 1000,
            batch_size: 4,
            max_seq_length: 2048,
            steps_per_eval: 200,
            val_batches: Some(25),
            save_every: 100,
            patience: None,
            preference: (PreferenceLoss::Sigmoid, 0.01),
            mlx_lm_compat: false,
        }
    }
}

/// What a [`Finetune`] tells.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub enum FinetuneEvent {
    /// A batch was trained on.
    Step {
        /// What it did.
        step: Step,
        /// Targets a second, of this step.
        tokens_per_second: f64,
        /// Targets trained on so far, this run's and those of the run it resumed.
        trained_tokens: u64,
        /// The most memory of MLX' arrays so far, in bytes.
        peak_bytes: u64,
    },
    /// The model was tried on the validation data.
    Validation {
        /// Batches trained on before it.
        iteration: u64,
        /// Mean loss over the targets, in nats (preferences: over the pairs).
        loss: f64,
        /// `e^loss`, the perplexity.
        perplexity: f64,
        /// Whether it is the lowest loss so far.
        best: bool,
    },
    /// The adapter and the state were written.
    Saved {
        /// Batches trained on before it.
        iteration: u64,
    },
    /// There is no more to come.
    Finished {
        /// Batches trained on.
        iteration: u64,
        /// Why it ended.
        reason: FinetuneEnd,
        /// The best validation, its iteration and loss.
        best: Option<(u64, f64)>,
    },
}

/// Why a [`Finetune`] ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinetuneEnd {
    /// All iterations are done.
    Iterations,
    /// Validation got no better for as long as `patience` says.
    Patience,
    /// It was cancelled; what was done is saved.
    Cancelled,
}

/// A fine-tuning run. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Finetune {
    trainer: Trainer,
    config: Config,
    train: TrainingData,
    valid: Option<TrainingData>,
    folder: PathBuf,
    options: FinetuneOptions,
    order: Order,
    metrics: Metrics,
    /// Preferences: sums of the chosen and the rejected answers, by pair.
    reference: Vec<[f32; 2]>,
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
        let state = run.folder.join(STATE);
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
        let state = run.folder.join(STATE);
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
                let (loss, beta) = self.options.preference;
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
            path: self.folder.join(STATE),
            problem: error.to_string(),
        })?;
        self.trainer
            .save_state(&self.folder.join(STATE), &progress)?;
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
        self.metrics.write(&line(&event))?;
        self.events.push_back(event);
        Ok(())
    }

    /// Preferences: what the model makes of every answer before the first step, once for all runs.
    fn measure_reference(&mut self) -> Result<()> {
        let TrainingData::Pairs(pairs) = &self.train else {
            return Ok(());
        };
        let path = self.folder.join(REFERENCE);
        let names = ["chosen", "rejected"];
        if path.is_file() {
            let tensors = tensor_file::load(&path)?;
            let read = |name: &str| match tensors.get(name) {
                Some(sums) if sums.size() == pairs.len() => Ok(sums.to_vec_exact::<f32>()?),
                _ => Err(Error::Checkpoint {
                    path: path.clone(),
                    problem: format!("`{name}` is not that of {} pairs", pairs.len()),
                }),
            };
            let sums = read(names[0])?.into_iter().zip(read(names[1])?);
            self.reference = sums.map(|(chosen, rejected)| [chosen, rejected]).collect();
            return Ok(());
        }
        let all: Vec<usize> = (0..pairs.len()).collect();
        let mut reference = Vec::with_capacity(pairs.len());
        for rows in all.chunks(self.options.batch_size) {
            let batch = self.options.batch(&self.train, rows);
            let sums = self.trainer.log_probabilities(&batch)?;
            let (chosen, rejected) = sums.split_at(rows.len());
            reference.extend(chosen.iter().zip(rejected).map(|(&c, &r)| [c, r]));
        }
        let side = |i: usize| -> Vec<f32> { reference.iter().map(|sums| sums[i]).collect() };
        let named = names.iter().enumerate().map(|(i, name)| {
            let sums = Array::from_slice(&side(i), &[reference.len() as i32]);
            ((*name).to_owned(), sums)
        });
        let tensors: Tensors = named.collect();
        tensor_file::save(&path, &tensors, ("format", "mlx".into()))?;
        self.reference = reference;
        Ok(())
    }
}

/// An event's line in `metrics.jsonl`; `Null` where it has none.
fn line(event: &FinetuneEvent) -> Value {
    match event {
        FinetuneEvent::Step {
            step,
            tokens_per_second,
            trained_tokens,
            peak_bytes,
        } => json!({
            "iteration": step.iteration,
            "train_loss": step.loss,
            "targets": step.targets,
            "learning_rate": step.learning_rate,
            "gradient_norm": step.gradient_norm,
            "tokens_per_second": tokens_per_second,
            "trained_tokens": trained_tokens,
            "peak_memory": peak_bytes,
        }),
        FinetuneEvent::Validation {
            iteration,
            loss,
            perplexity,
            best,
        } => json!({
            "iteration": iteration,
            "val_loss": loss,
            "perplexity": perplexity,
            "best": best,
        }),
        _ => Value::Null,
    }
}

/// What differs between two options' texts: `learning_rate: 0.001, now 0.002`.
pub(crate) fn changed(old: &str, new: &str) -> String {
    let pairs = old.split(", ").zip(new.split(", "));
    let differing = pairs.filter(|(old, new)| old != new).map(|(old, new)| {
        let value = new.split_once(": ").map_or(new, |(_, value)| value);
        // The innermost setting, without the braces around it.
        let old = old.rsplit("{ ").next().unwrap_or(old);
        let trim = |text: &str| text.trim_end_matches(" }").trim_start().to_owned();
        format!(
            "{}, now {}",
            trim(old),
            trim(value.rsplit(": ").next().unwrap_or(value))
        )
    });
    differing.collect::<Vec<_>>().join("; ")
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

impl FinetuneOptions {
    fn check(&self) -> Result<()> {
        let zero = [
            ("iters", self.iters),
            ("batch_size", self.batch_size as u64),
            ("steps_per_eval", self.steps_per_eval),
            ("save_every", self.save_every),
            ("val_batches", self.val_batches.unwrap_or(1) as u64),
            ("patience", u64::from(self.patience.unwrap_or(1))),
        ];
        if let Some(&(option, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Option {
                option,
                problem: "expected at least 1, found 0".into(),
            });
        }
        if self.max_seq_length < 2 {
            return Err(Error::Option {
                option: "max_seq_length",
                problem: format!("expected at least 2, found {}", self.max_seq_length),
            });
        }
        Ok(())
    }

    fn batch(&self, data: &TrainingData, rows: &[usize]) -> Batch {
        let padding = Padding {
            max_length: self.max_seq_length,
            ..Padding::default()
        };
        match data {
            TrainingData::Examples(examples) => {
                let chosen: Vec<&Example> = rows.iter().filter_map(|&i| examples.get(i)).collect();
                match self.mlx_lm_compat {
                    true => Batch::mlx_lm(&chosen, self.max_seq_length),
                    false => Batch::new(&chosen, padding),
                }
            }
            TrainingData::Pairs(pairs) => {
                let chosen: Vec<&PreferencePair> =
                    rows.iter().filter_map(|&i| pairs.get(i)).collect();
                Batch::pairs(&chosen, padding)
            }
        }
    }
}
