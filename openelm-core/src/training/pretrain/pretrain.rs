//! The pre-training run.

use std::{
    path::{Path, PathBuf},
    rc::Rc,
    time::Instant,
};

use serde_json::Value;

use super::{
    checkpoints::{CHECKPOINTS, Checkpoints},
    corenet_checkpoint::CoreNetCheckpoint,
    event::{PretrainEnd, PretrainEvent},
    options::PretrainOptions,
    resume_key::{resume_key, validation_key},
    source::SequenceSource,
    validation::{Validation, packed},
};
use crate::{
    cancel::CancelHandle,
    config::Config,
    data::{
        batch::Batch,
        corpus::{CorpusStatistics, Sequence},
    },
    error::{Error, Result},
    files::check_inputs,
    mlx::{Dtype, memory},
    tokenizer::Tokenizer,
    training::{
        Group, OptimizerKind, Trainer,
        model_folder::{self, FolderTemplate},
        run::{Advance, Run, next_event},
        state::{Position, STATE_FILE},
    },
    weights::{self, PendingTensor, random as init},
};

const MODEL: &str = "model";
const EMA: &str = "ema";
const AVERAGE: &str = "average";

/// A pre-training run. Not `Send`: it belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Pretrain {
    pub(crate) trainer: Trainer,
    source: Box<dyn SequenceSource>,
    validation: Option<Validation>,
    pub(crate) options: PretrainOptions,
    group: Option<Rc<Group>>,
    template: FolderTemplate,
    run: Run<PretrainEvent>,
}

impl Pretrain {
    /// Starts to train a model of `config` on `source`, with files in `folder`, which is created
    /// if needed. The processes of `group` train it together, each with its own part of the
    /// source; only rank 0 writes.
    ///
    /// # Errors
    /// [`Error::Option`] for an option out of range, [`Error::Destination`] if the folder holds a
    /// run, its results, an input or files of another program that the run would replace, or another process
    /// writes there, [`Error::Io`]; for a model to start from as
    /// [`Checkpoint::open`](crate::weights::Checkpoint::open) and
    /// [`check`](crate::weights::Checkpoint::check).
    pub fn new(
        config: Config,
        source: Box<dyn SequenceSource>,
        validation: Option<Validation>,
        folder: impl AsRef<Path>,
        options: PretrainOptions,
        group: Option<Group>,
    ) -> Result<Self> {
        let folder = folder.as_ref();
        let model = options.model.as_deref().map(|path| ("model", path));
        let tokenizer = options.tokenizer.as_deref();
        let tokenizer = tokenizer.map(|path| ("tokenizer", path));
        check_inputs(folder, model.into_iter().chain(tokenizer))?;
        let mut run = Self::prepare(config, source, validation, folder, options, group)?;
        run.begin(|run| run.begin(&[CHECKPOINTS]))?;
        Ok(run)
    }

    /// Continues the run in `folder` from its last save: the same arguments give the same bytes as
    /// an uninterrupted run. Another number of processes changes only the rounding. Only rank 0
    /// reads the folder.
    ///
    /// A run that ended before its first save starts again: if `folder` does not exist, or has
    /// nothing but the files that a run writes before, this is [`new`](Self::new), and
    /// [`iteration`](Self::iteration) is 0.
    ///
    /// Options that change the trained weights must equal the saved run's options. `iters` (with a
    /// constant schedule), `micro_batch_size`, `save_every`, `steps_per_eval`, `val_batches`,
    /// `keep_checkpoints`, `average_last`, `save_dtype`, `grad_checkpoint` and the validation data
    /// may change.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::MissingFile`] if there is no state but other files,
    /// [`Error::OtherRun`] if it has other options, another architecture or tokenizer, or other data,
    /// [`Error::Checkpoint`] if it is malformed or of an older version.
    pub fn resume(
        config: Config,
        source: Box<dyn SequenceSource>,
        validation: Option<Validation>,
        folder: impl AsRef<Path>,
        mut options: PretrainOptions,
        group: Option<Group>,
    ) -> Result<Self> {
        let state = folder.as_ref().join(STATE_FILE);
        let is_saved = match &group {
            Some(group) => group.any(group.rank() == 0 && state.is_file())?,
            None => state.is_file(),
        };
        if !is_saved {
            let folder = folder.as_ref();
            let mut run = Self::prepare(config, source, validation, folder, options, group)?;
            run.begin(|run| run.begin_again(&[CHECKPOINTS]))?;
            return Ok(run);
        }
        options.model = None;
        let mut run = Self::prepare(config, source, validation, folder.as_ref(), options, group)?;
        let malformed = |error: serde_json::Error| Error::Checkpoint {
            path: state.clone(),
            problem: error.to_string(),
        };
        let mut saved = Vec::new();
        if run.run.is_rank_zero() {
            run.run.load_progress()?;
            if !run.trainer.is_sharded() {
                run.trainer.restore(&state)?;
            }
            saved = serde_json::to_vec(&run.run.progress).map_err(malformed)?;
        }
        if let Some(group) = &run.group {
            let saved = group.from_first(&saved)?;
            run.run.progress = serde_json::from_slice(&saved).map_err(malformed)?;
            run.trainer.follow(group, &state)?;
        }
        let restored = run.source.restore(&run.run.progress.source);
        restored.map_err(|error| match error {
            Error::OtherRun { differences, .. } => Error::OtherRun {
                path: state,
                differences,
            },
            other => other,
        })?;
        run.run.continue_metrics(run.trainer.iteration(), false)?;
        Ok(run)
    }

    pub(crate) fn prepare(
        config: Config,
        source: Box<dyn SequenceSource>,
        validation: Option<Validation>,
        folder: &Path,
        mut options: PretrainOptions,
        group: Option<Group>,
    ) -> Result<Self> {
        let processes = group.as_ref().map_or(1, Group::size);
        let group = group.map(Rc::new);
        options.check(processes)?;
        options.check_sizes(&config, source.sequence_length(), processes)?;
        // Repositories of the Hub cache become folders with the files.
        let is_file = options.model.as_deref().is_some_and(Path::is_file);
        if !is_file {
            options.model = options.model.map(weights::model_folder).transpose()?;
        }
        options.tokenizer = match options.tokenizer {
            Some(path) => Some(Tokenizer::locate(&path)?),
            None => None,
        };
        let key = resume_key(&config, &options)?;
        let validated = validation_key(&options, validation.as_ref());
        let is_rank_zero = group.as_ref().is_none_or(|group| group.rank() == 0);
        let template =
            FolderTemplate::new(&config, options.tokenizer.as_deref(), options.save_dtype);
        let (start, position) = match &options.model {
            Some(file) if is_file => CoreNetCheckpoint::open(file)?.read(&config)?,
            Some(folder) => (model_folder::weights(folder, &config)?, None),
            None => {
                let random = init::random_weights(&config, Dtype::Float32, options.seed)?;
                (random, None)
            }
        };
        let dtype = options.dtype()?;
        let run = Run::new(folder, is_rank_zero, key, validated);
        run.check_places(&[STATE_FILE], &[CHECKPOINTS, MODEL, EMA, AVERAGE])?;
        let mut trainer = Trainer::from_scratch(config, start, dtype, options.trainer.clone())?;
        if let Some(position) = position {
            check_position(&position, &options)?;
            let path = options.model.clone().unwrap_or_default();
            let missing = |name| Error::checkpoint(path, format!("it has no state of `{name}`"));
            trainer.set_position(position).map_err(missing)?;
        }
        if let Some(group) = group.as_ref().filter(|_| options.fsdp) {
            trainer.shard(Rc::clone(group))?;
        }
        Ok(Self {
            trainer,
            source,
            validation,
            options,
            group,
            template,
            run,
        })
    }

    /// Calls `begin`, and removes the checkpoint of a run that was killed during its first save.
    fn begin(&mut self, begin: impl FnOnce(&mut Run<PretrainEvent>) -> Result<()>) -> Result<()> {
        let lacks_state = self.run.is_rank_zero() && !self.run.is_saved();
        if lacks_state {
            self.checkpoints().check_first(&self.run.state())?;
        }
        begin(&mut self.run)?;
        if lacks_state {
            self.checkpoints().remove_first()?;
        }
        Ok(())
    }

    /// Number of trained parameters.
    pub fn parameter_count(&self) -> u64 {
        self.trainer.parameter_count()
    }

    /// Number of updates so far.
    pub fn iteration(&self) -> u64 {
        self.trainer.iteration()
    }

    /// Counts of the data read so far, including data read ahead.
    pub fn data_statistics(&self) -> Option<CorpusStatistics> {
        self.source.statistics()
    }

    /// A handle that ends the run before its next step, from any thread; its progress is saved.
    /// Cancelling one process of a group ends all.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.run.cancel_handle()
    }

    fn rank(&self) -> usize {
        self.group.as_ref().map_or(0, |group| group.rank())
    }

    fn world_size(&self) -> usize {
        self.group.as_ref().map_or(1, |group| group.size())
    }

    /// True if `yes` is true in any process.
    fn any_rank(&self, yes: bool) -> Result<bool> {
        match &self.group {
            Some(group) => group.any(yes),
            None => Ok(yes),
        }
    }

    /// This process's share of the next update; `None` if the remaining data is not enough.
    pub(crate) fn next_batches(&mut self) -> Result<Option<Vec<Batch>>> {
        let share = self.options.batch_size / self.world_size();
        let mut sequences: Vec<Sequence> = Vec::new();
        while sequences.len() < share {
            match self.source.next_sequence()? {
                Some(sequence) => sequences.push(sequence),
                None => return Ok(None),
            }
        }
        let micro = sequences.chunks(self.options.micro_batch_size);
        Ok(Some(micro.map(|rows| packed(rows.iter())).collect()))
    }

    fn validate(&mut self) -> Result<()> {
        let Some(validation) = &self.validation else {
            return Ok(());
        };
        let most = self.options.val_windows().unwrap_or(usize::MAX);
        let rows = self.options.micro_batch_size;
        let batches = validation.batches(most, rows, self.rank(), self.world_size());
        let (nats, targets) = self
            .trainer
            .evaluate_sum_of(batches, self.group.as_deref())?;
        let validation_bytes = validation.bytes(most);
        let iteration = self.trainer.iteration();
        let loss = nats / targets.max(1) as f64;
        let best = self.run.record_validation(iteration, loss)?;
        let bytes = validation_bytes.max(1);
        self.run.emit(PretrainEvent::Validation {
            iteration,
            loss,
            bits_per_byte: nats / std::f64::consts::LN_2 / bytes as f64,
            best,
        })
    }

    /// Writes the checkpoint first: if the run is killed before the state is written, resume
    /// writes the checkpoint again.
    fn save(&mut self, source: Value) -> Result<()> {
        self.run.progress.source = self.source_of_all(source)?;
        let iteration = self.trainer.iteration();
        let checkpoints = self.checkpoints();
        let folder = checkpoints.path(iteration);
        if self.run.is_rank_zero() {
            checkpoints.create_folder()?;
            self.template.write(&folder, &self.trainer.weights())?;
            self.run.save_state(&self.trainer)?;
            checkpoints.remove_old(iteration, self.options.keep_checkpoints)?;
        } else {
            self.trainer.contribute_weights()?;
            self.trainer.contribute_state()?;
        }
        self.run.emit(PretrainEvent::Saved { iteration, folder })
    }

    /// The position of the source in all processes, of this process's.
    fn source_of_all(&self, own: Value) -> Result<Value> {
        let Some(group) = self.group.as_ref().filter(|_| self.source.is_sharded()) else {
            return Ok(own);
        };
        let malformed = |error: serde_json::Error| Error::Checkpoint {
            path: STATE_FILE.into(),
            problem: format!("the state of the data: {error}"),
        };
        let own = serde_json::to_vec(&own).map_err(malformed)?;
        let mut states = Vec::with_capacity(group.size());
        for rank in 0..group.size() {
            let state = group.from_rank(rank, &own)?;
            states.push(serde_json::from_slice(&state).map_err(malformed)?);
        }
        self.source.merge(states)
    }

    /// Saves with the position of the source, if there is an unsaved step, and writes the results.
    fn finish(&mut self, reason: PretrainEnd, source: Option<Value>) -> Result<()> {
        let iteration = self.trainer.iteration();
        if let Some(source) = source.filter(|_| iteration > 0) {
            self.save(source)?;
        }
        let ends = reason != PretrainEnd::Cancelled && iteration > 0;
        if ends && !self.run.is_rank_zero() {
            self.trainer.contribute_weights()?;
            self.trainer.contribute_average()?;
        }
        if ends && self.run.is_rank_zero() {
            let weights = self.trainer.weights();
            self.template
                .write(&self.run.folder().join(MODEL), &weights)?;
            if let Some(average) = self.trainer.averaged_weights() {
                self.template
                    .write(&self.run.folder().join(EMA), &average)?;
            }
            let checkpoints = self.checkpoints();
            // A run that was killed after its last save may not have removed them.
            checkpoints.remove_old(iteration, self.options.keep_checkpoints)?;
            let checkpoints = checkpoints.complete(iteration)?;
            let first = checkpoints.len().saturating_sub(self.options.averaged());
            let last = checkpoints.iter().skip(first);
            let last: Vec<PathBuf> = last.map(|(_, folder)| folder.clone()).collect();
            if self.options.averaged() > 1 && last.len() > 1 {
                let average = model_folder::average(&last)?;
                let average = average.iter();
                let average: Vec<PendingTensor<'_>> = average
                    .map(|(name, array)| PendingTensor::new(name, array))
                    .collect();
                self.template
                    .write(&self.run.folder().join(AVERAGE), &average)?;
            }
        }
        self.run.finish(PretrainEvent::Finished {
            iteration,
            reason,
            best: self.run.best(),
        })
    }

    /// The checkpoints of the run.
    fn checkpoints(&self) -> Checkpoints {
        Checkpoints::of_run(self.run.folder())
    }
}

/// Refuses an optimizer without AdamW's moments, and a run that has ended at the position.
fn check_position(position: &Position, options: &PretrainOptions) -> Result<()> {
    let kind = options.trainer.optimizer.kind;
    if !matches!(kind, OptimizerKind::Adam | OptimizerKind::AdamW) {
        let problem = "expected AdamW, whose moments the checkpoint to start from has";
        return Err(Error::option("optimizer", problem));
    }
    let (done, iters) = (position.iteration, options.iters);
    if iters > done {
        return Ok(());
    }
    let problem = format!(
        "expected more than {done}, the iteration of the checkpoint to start from; found {iters}"
    );
    Err(Error::option("iters", problem))
}

impl Advance for Pretrain {
    type Event = PretrainEvent;

    fn run(&mut self) -> &mut Run<PretrainEvent> {
        &mut self.run
    }

    fn advance(&mut self) -> Result<()> {
        if self.trainer.iteration() >= self.options.iters {
            return self.finish(PretrainEnd::Steps, None);
        }
        if self.any_rank(self.run.is_cancelled())? {
            let source = self.source.state()?;
            return self.finish(PretrainEnd::Cancelled, Some(source));
        }
        let started = Instant::now();
        let before = self.source.state()?;
        let batches = self.next_batches()?;
        let lacks_data = self.any_rank(batches.is_none())?;
        let Some(batches) = batches.filter(|_| !lacks_data) else {
            // Another process has no batches, so these are not used.
            return self.finish(PretrainEnd::Data, Some(before));
        };
        let step = self.trainer.update(&batches, self.group.as_deref())?;
        self.run.progress.trained_tokens += step.targets as u64;
        let event = PretrainEvent::Step {
            step,
            tokens_per_second: step.targets as f64 / started.elapsed().as_secs_f64(),
            trained_tokens: self.run.progress.trained_tokens,
            peak_bytes: memory::peak_bytes()? as u64,
        };
        self.run.emit(event)?;

        let done = self.trainer.iteration();
        let last = done == self.options.iters;
        if last || done.is_multiple_of(self.options.steps_per_eval) {
            self.validate()?;
        }
        if last {
            let source = self.source.state()?;
            return self.finish(PretrainEnd::Steps, Some(source));
        }
        if done.is_multiple_of(self.options.save_every) {
            let source = self.source.state()?;
            self.save(source)?;
        }
        Ok(())
    }
}

impl Iterator for Pretrain {
    type Item = Result<PretrainEvent>;

    fn next(&mut self) -> Option<Self::Item> {
        next_event(self)
    }
}
