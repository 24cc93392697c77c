//! The run itself.

use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
    time::Instant,
};

use mlx_rs::Array;
use serde_json::Value;

use super::{
    event::{PretrainEnd, PretrainEvent},
    options::PretrainOptions,
    progress::Progress,
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
    mlx::{Dtype, memory},
    training::{
        Group, Metrics, STATE_FILE, Trainer,
        model_folder::{self, FolderTemplate},
    },
    weights::random as init,
};

const CHECKPOINTS: &str = "checkpoints";

/// A pre-training run. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Pretrain {
    pub(crate) trainer: Trainer,
    source: Box<dyn SequenceSource>,
    validation: Option<Validation>,
    folder: PathBuf,
    pub(crate) options: PretrainOptions,
    group: Option<Group>,
    around: FolderTemplate,
    metrics: Metrics,
    progress: Progress,
    cancel: CancelHandle,
    events: VecDeque<PretrainEvent>,
    ended: bool,
}

impl Pretrain {
    /// Begins to train a model of `config` on `source`, and to keep its files in `folder`, which is
    /// made if need be. `group` are the processes that train it together, each with its own part
    /// of the source; all but rank 0 write nothing.
    ///
    /// # Errors
    /// [`Error::Option`] for an option outside its range, [`Error::Target`] if the folder holds the
    /// state of another run, [`Error::Io`]; for a model to start from as
    /// [`Checkpoint::open`](crate::weights::Checkpoint::open) and [`check`](crate::weights::Checkpoint::check).
    pub fn new(
        config: Config,
        source: Box<dyn SequenceSource>,
        validation: Option<Validation>,
        folder: impl AsRef<Path>,
        options: PretrainOptions,
        group: Option<Group>,
    ) -> Result<Self> {
        let mut run = Self::prepare(config, source, validation, folder.as_ref(), options, group)?;
        if run.is_rank_zero() {
            let state = run.folder.join(STATE_FILE);
            if state.exists() {
                return Err(Error::Target {
                    path: state,
                    problem: "there is a run here already: resume it, or choose another folder"
                        .into(),
                });
            }
            fs::create_dir_all(&run.folder).map_err(Error::io(&run.folder))?;
            run.metrics = Metrics::open(&run.folder, 0)?;
        }
        Ok(run)
    }

    /// Goes on with the run in `folder` from its last save: the same arguments lead to the same
    /// bytes as if it had never stopped. Another number of processes than before leads to the same
    /// but for rounding. Only rank 0 reads the folder.
    ///
    /// # Errors
    /// As [`new`](Self::new); [`Error::MissingFile`] if there is no state, [`Error::Target`] if it
    /// was made with other options, another architecture or tokenizer, or other data.
    pub fn resume(
        config: Config,
        source: Box<dyn SequenceSource>,
        validation: Option<Validation>,
        folder: impl AsRef<Path>,
        mut options: PretrainOptions,
        group: Option<Group>,
    ) -> Result<Self> {
        options.model = None;
        let mut run = Self::prepare(config, source, validation, folder.as_ref(), options, group)?;
        let state = run.folder.join(STATE_FILE);
        let malformed = |error: serde_json::Error| Error::Checkpoint {
            path: state.clone(),
            problem: error.to_string(),
        };
        let mut kept = Vec::new();
        if run.is_rank_zero() {
            if !state.is_file() {
                return Err(Error::MissingFile {
                    path: state,
                    problem: "there is no run to resume".into(),
                });
            }
            let found = Trainer::caller_of(&state)?;
            let found: Progress = serde_json::from_value(found).map_err(malformed)?;
            run.progress.agree(&found, &state)?;
            run.trainer.restore(&state)?;
            kept = serde_json::to_vec(&found).map_err(malformed)?;
        }
        if let Some(group) = &run.group {
            kept = group.from_first(&kept)?;
            run.trainer.follow(group)?;
        }
        run.progress = serde_json::from_slice(&kept).map_err(malformed)?;
        run.source.restore(&run.progress.source)?;
        if run.is_rank_zero() {
            run.metrics = Metrics::open(&run.folder, run.trainer.iteration())?;
        }
        Ok(run)
    }

    pub(crate) fn prepare(
        config: Config,
        source: Box<dyn SequenceSource>,
        validation: Option<Validation>,
        folder: &Path,
        options: PretrainOptions,
        group: Option<Group>,
    ) -> Result<Self> {
        options.check(group.as_ref().map_or(1, Group::size))?;
        let progress = Progress::new(&config, &options)?;
        let around = FolderTemplate::new(&config, options.tokenizer.as_deref(), options.save_dtype);
        let start = match &options.model {
            Some(folder) => model_folder::weights(folder, &config)?,
            None => init::random_weights(&config, Dtype::Float32, options.seed)?,
        };
        let dtype = options.dtype()?;
        Ok(Self {
            trainer: Trainer::from_scratch(config, start, dtype, options.trainer.clone())?,
            source,
            validation,
            folder: folder.to_path_buf(),
            options,
            group,
            around,
            metrics: Metrics::none(),
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

    /// Updates made so far.
    pub fn iteration(&self) -> u64 {
        self.trainer.iteration()
    }

    /// What was read of the data so far, that which is read ahead included.
    pub fn data_statistics(&self) -> Option<CorpusStatistics> {
        self.source.statistics()
    }

    /// Ends the run before its next step, from any thread; what was done is saved first. In a
    /// group one process that is cancelled ends all.
    pub fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    /// Whether this process keeps the run's files.
    fn is_rank_zero(&self) -> bool {
        self.place().0 == 0
    }

    /// Which process this is, of how many.
    fn place(&self) -> (usize, usize) {
        let group = self.group.as_ref();
        group.map_or((0, 1), |group| (group.rank(), group.size()))
    }

    fn any_rank(&self, yes: bool) -> Result<bool> {
        match &self.group {
            Some(group) => group.any(yes),
            None => Ok(yes),
        }
    }

    fn advance(&mut self) -> Result<()> {
        if self.trainer.iteration() >= self.options.steps {
            return self.finish(PretrainEnd::Steps, None);
        }
        if self.any_rank(self.cancel.is_cancelled())? {
            let source = self.source.state()?;
            return self.finish(PretrainEnd::Cancelled, Some(source));
        }
        let started = Instant::now();
        let before = self.source.state()?;
        let batches = self.next_batches()?;
        if self.any_rank(batches.is_none())? {
            // Whoever got some does not train on them.
            return self.finish(PretrainEnd::Data, Some(before));
        }
        let batches = batches.unwrap_or_default();
        let step = self.trainer.update(&batches, self.group.as_ref())?;
        self.progress.trained_tokens += step.targets as u64;
        let event = PretrainEvent::Step {
            step,
            tokens_per_second: step.targets as f64 / started.elapsed().as_secs_f64(),
            trained_tokens: self.progress.trained_tokens,
            peak_bytes: memory::peak_bytes()? as u64,
        };
        self.tell(event)?;

        let done = self.trainer.iteration();
        let last = done == self.options.steps;
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

    /// This process' share of the next update; `None` if there is not enough data for it.
    pub(crate) fn next_batches(&mut self) -> Result<Option<Vec<Batch>>> {
        let share = self.options.batch_size / self.place().1;
        let mut sequences: Vec<Sequence> = Vec::with_capacity(share);
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
        let most = self.options.val_windows.unwrap_or(usize::MAX);
        let rows = self.options.micro_batch_size;
        let (mut nats, mut targets) = (0.0, 0);
        for batch in validation.batches(most, rows, self.place()) {
            let (sum, count) = self.trainer.evaluate_sum([&batch])?;
            nats += sum;
            targets += count;
        }
        if let Some(group) = &self.group {
            let sums = Array::from_slice(&[nats as f32, targets as f32], &[2]);
            let sums = group.all_sum(&sums)?.to_vec_exact::<f32>()?;
            let [sum, count] = <[f32; 2]>::try_from(sums).unwrap_or_default();
            (nats, targets) = (f64::from(sum), count as usize);
        }
        let iteration = self.trainer.iteration();
        let loss = nats / targets.max(1) as f64;
        if !loss.is_finite() {
            return Err(Error::Diverged {
                iteration,
                loss: loss as f32,
            });
        }
        let bytes = validation.bytes(most).max(1);
        let best = self.progress.best.is_none_or(|(_, best)| loss < best);
        if best {
            self.progress.best = Some((iteration, loss));
        }
        self.tell(PretrainEvent::Validation {
            iteration,
            loss,
            bits_per_byte: nats / std::f64::consts::LN_2 / bytes as f64,
            best,
        })
    }

    /// The checkpoint first: a run that is killed before the state is written makes it again.
    fn save(&mut self, source: Value) -> Result<()> {
        self.progress.source = source;
        let iteration = self.trainer.iteration();
        let folder = self.checkpoint(iteration);
        if self.is_rank_zero() {
            fs::create_dir_all(self.folder.join(CHECKPOINTS)).map_err(Error::io(&self.folder))?;
            self.around.write(&folder, &self.trainer.weights())?;
            let state = self.folder.join(STATE_FILE);
            let progress =
                serde_json::to_value(&self.progress).map_err(|error| Error::Checkpoint {
                    path: state.clone(),
                    problem: error.to_string(),
                })?;
            self.trainer.save_state(&state, &progress)?;
            let checkpoints = self.checkpoints()?;
            let old = checkpoints
                .len()
                .saturating_sub(self.options.keep_checkpoints);
            for (_, folder) in checkpoints.iter().take(old) {
                fs::remove_dir_all(folder).map_err(Error::io(folder))?;
            }
        }
        self.tell(PretrainEvent::Saved { iteration, folder })
    }

    /// Saves with where the `source` stands, if there is anything to save, and is_rank_zero the results.
    fn finish(&mut self, reason: PretrainEnd, source: Option<Value>) -> Result<()> {
        let iteration = self.trainer.iteration();
        if let Some(source) = source.filter(|_| iteration > 0) {
            self.save(source)?;
        }
        if self.is_rank_zero() && reason != PretrainEnd::Cancelled && iteration > 0 {
            let weights = self.trainer.weights();
            self.around.write(&self.folder.join("model"), &weights)?;
            if let Some(average) = self.trainer.averaged_weights() {
                self.around.write(&self.folder.join("ema"), &average)?;
            }
            let checkpoints = self.checkpoints()?;
            let first = checkpoints.len().saturating_sub(self.options.averaged());
            let last = checkpoints.iter().skip(first);
            let last: Vec<PathBuf> = last.map(|(_, folder)| folder.clone()).collect();
            if self.options.averaged() > 1 && last.len() > 1 {
                let average = model_folder::average(&last)?;
                self.around.write(&self.folder.join("average"), &average)?;
            }
        }
        self.ended = true;
        self.tell(PretrainEvent::Finished {
            iteration,
            reason,
            best: self.progress.best,
        })
    }

    fn checkpoint(&self, iteration: u64) -> PathBuf {
        let name = format!("step-{iteration:06}");
        self.folder.join(CHECKPOINTS).join(name)
    }

    /// The checkpoints up to now, oldest first.
    fn checkpoints(&self) -> Result<Vec<(u64, PathBuf)>> {
        let folder = self.folder.join(CHECKPOINTS);
        let entries = fs::read_dir(&folder).map_err(Error::io(&folder))?;
        let now = self.trainer.iteration();
        let mut found: Vec<(u64, PathBuf)> = entries
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let number = path.file_name()?.to_str()?.strip_prefix("step-")?;
                Some((number.parse().ok()?, path))
            })
            .filter(|(iteration, _)| *iteration <= now)
            .collect();
        found.sort();
        Ok(found)
    }

    fn tell(&mut self, event: PretrainEvent) -> Result<()> {
        self.metrics.write(&event.line())?;
        self.events.push_back(event);
        Ok(())
    }
}

impl Iterator for Pretrain {
    type Item = Result<PretrainEvent>;

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
