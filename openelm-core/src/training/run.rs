//! The common part of training runs: folder and lock, progress, events, best validation, end.
//!
//! [`Finetune`](super::finetune::Finetune) and [`Pretrain`](super::pretrain::Pretrain) are
//! iterators of events that contain a [`Run`]; they add the data, the steps and the files of their
//! results.

use std::{
    collections::{BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{
    event::{BestValidation, RunEvent},
    metrics::{METRICS_FILE, Metrics},
    resume_key::ResumeKey,
    run_folder::RunFolder,
    state::STATE_FILE,
    trainer::Trainer,
};
use crate::{
    cancel::CancelHandle,
    error::{Error, Remedy, Result, RunDifference},
    files::LOCK_FILE,
    mlx::cache_policy::{DeviceWork, Phase},
};

/// Files that every run writes before its first save, and the file with the processes of `openelm`.
const LEFTOVERS: [&str; 3] = [LOCK_FILE, METRICS_FILE, "ranks.json"];

/// Progress of a run, stored in the state file in addition to the trainer's state.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Progress {
    resume_key: ResumeKey,
    /// Identifies the validation data and the part of it that is used.
    validation: Value,
    pub(super) trained_tokens: u64,
    best: Option<BestValidation>,
    since_best: u32,
    /// True for a run that began with a saved adapter; none in states of older versions.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) starts_from: Option<bool>,
    /// Position in the training data; null if the iteration determines it.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(super) source: Value,
}

/// A training run in a folder. Of several processes, only rank 0 has the folder.
#[derive(Debug)]
pub(super) struct Run<E> {
    folder: PathBuf,
    is_rank_zero: bool,
    lock: Option<RunFolder>,
    metrics: Metrics,
    pub(super) progress: Progress,
    cancel: CancelHandle,
    events: VecDeque<E>,
    ended: bool,
    /// From the first step to the end.
    work: Option<DeviceWork>,
}

impl<E: RunEvent> Run<E> {
    /// A run before its first step. Nothing is written.
    pub(super) fn new(
        folder: &Path,
        is_rank_zero: bool,
        resume_key: ResumeKey,
        validation: Value,
    ) -> Self {
        Self {
            folder: folder.to_path_buf(),
            is_rank_zero,
            lock: None,
            metrics: Metrics::none(),
            progress: Progress {
                resume_key,
                validation,
                trained_tokens: 0,
                best: None,
                since_best: 0,
                starts_from: None,
                source: Value::Null,
            },
            cancel: CancelHandle::default(),
            events: VecDeque::new(),
            ended: false,
            work: None,
        }
    }

    /// Creates and locks the folder for a new run. `leftovers` are names that a run may have written
    /// before its first save and that the new run replaces.
    ///
    /// # Errors
    /// [`Error::Destination`] if another process writes there, or the folder holds a run, results of
    /// a run or files of another program that the run would replace; [`Error::Io`].
    pub(super) fn begin(&mut self, leftovers: &[&str]) -> Result<()> {
        if !self.is_rank_zero {
            return Ok(());
        }
        if self.is_saved()
            && let Ok(saved) = Trainer::caller_of(&self.state())
        {
            self.check_kind(&saved)?;
        }
        let remedy = Remedy::StartFrom(E::NEW_RUN);
        let folder = RunFolder::begin(&self.folder, E::WRITES, leftovers, remedy)?;
        self.start(folder)
    }

    fn start(&mut self, folder: RunFolder) -> Result<()> {
        self.lock = Some(folder);
        let metrics = Metrics::open(&self.folder, 0, None);
        self.metrics = metrics.inspect_err(|_| self.discard())?;
        Ok(())
    }

    /// Begins a run in a folder that is empty, or holds only the files of a run that ended before
    /// its first save: `leftovers` are their names, apart from the names that all runs have.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder has other files, and as [`begin`](Self::begin).
    pub(super) fn begin_again(&mut self, leftovers: &[&str]) -> Result<()> {
        if !self.is_rank_zero {
            return Ok(());
        }
        if let Some(name) = self.other_file(leftovers)? {
            let problem = "there is no run to resume, and the folder holds other files";
            let error = Error::missing_file(self.state(), format!("{problem}: {name}"));
            return Err(if E::WRITES.contains(&name.as_str()) {
                error.with_remedy(Remedy::StartFrom(E::NEW_RUN))
            } else {
                error
            });
        }
        self.begin(leftovers)
    }

    /// The name of a visible file in the folder that is not in `leftovers`, results of a run before
    /// other files. Temporary files are hidden, or end in `.partial`.
    fn other_file(&self, leftovers: &[&str]) -> Result<Option<String>> {
        if !self.folder.exists() {
            return Ok(None);
        }
        let entries = fs::read_dir(&self.folder).map_err(Error::io(&self.folder))?;
        let mut names = BTreeSet::new();
        for entry in entries {
            let name = entry.map_err(Error::io(&self.folder))?.file_name();
            let name = name.to_string_lossy();
            let is_temporary = name.starts_with('.') || name.ends_with(".partial");
            if !is_temporary
                && !LEFTOVERS
                    .iter()
                    .chain(leftovers)
                    .any(|known| *known == name)
            {
                names.insert(name.into_owned());
            }
        }
        let result = E::WRITES.iter().find(|name| names.contains(**name));
        let result = result.map(|name| (*name).to_owned());
        Ok(result.or_else(|| names.pop_first()))
    }

    /// Checks that `files` and `folders`, names in the folder of the run that it writes later, are
    /// no folders and no files, so that no save fails because of them.
    ///
    /// # Errors
    /// [`Error::Destination`].
    pub(super) fn check_places(&self, files: &[&str], folders: &[&str]) -> Result<()> {
        if !self.is_rank_zero {
            return Ok(());
        }
        let wrong = |path: PathBuf, problem: &str| Err(Error::destination(path, problem));
        for path in files.iter().map(|name| self.folder.join(name)) {
            if path.is_dir() {
                return wrong(path, "expected a file or nothing, found a folder");
            }
        }
        for path in folders.iter().map(|name| self.folder.join(name)) {
            if path.exists() && !path.is_dir() {
                return wrong(path, "expected a folder or nothing, found a file");
            }
        }
        Ok(())
    }

    /// True if the folder has a saved run.
    pub(super) fn is_saved(&self) -> bool {
        self.state().is_file()
    }

    /// Locks the folder of a saved run and reads its progress, if the resume keys agree.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if there is no state, [`Error::Destination`] if another process
    /// trains there, [`Error::OtherRun`] if the resume keys differ, [`Error::Checkpoint`] if the
    /// state is malformed or of an older version, [`Error::Io`].
    pub(super) fn load_progress(&mut self) -> Result<()> {
        let path = self.state();
        if !path.is_file() {
            return Err(Error::MissingFile {
                path,
                problem: "there is no run to resume".into(),
            });
        }
        self.lock = Some(RunFolder::resume(&self.folder)?);
        let malformed = |problem: String| Error::Checkpoint {
            path: path.clone(),
            problem,
        };
        let saved = Trainer::caller_of(&path)?;
        self.check_kind(&saved)?;
        if saved.get("options").is_some() && saved.get("resume_key").is_none() {
            let problem = "an older version saved this run, and this one cannot resume it";
            return Err(malformed(problem.into()).with_remedy(Remedy::StartFrom(E::NEW_RUN)));
        }
        let mut saved: Progress =
            serde_json::from_value(saved).map_err(|error| malformed(error.to_string()))?;
        let mut differences = saved.resume_key.differences(&self.progress.resume_key);
        if !differences.is_empty() {
            // The cause of differences between the options of two adapters.
            let starts = (saved.starts_from, self.progress.starts_from);
            if let (Some(expected), Some(found)) = starts
                && expected != found
            {
                let text = |given| if given { "an adapter" } else { "none" };
                let difference = RunDifference {
                    option: "start_from".into(),
                    expected: text(expected).into(),
                    found: text(found).into(),
                };
                differences.insert(0, difference);
            }
            return Err(Error::OtherRun { path, differences });
        }
        if saved.validation != self.progress.validation {
            // Losses of other data are not comparable.
            saved.validation = self.progress.validation.take();
            saved.best = None;
            saved.since_best = 0;
        }
        self.progress = saved;
        Ok(())
    }

    /// Refuses a folder with a run of the other kind: fine-tuning or pre-training.
    fn check_kind(&self, saved: &Value) -> Result<()> {
        let Some(key) = saved.get("resume_key") else {
            return Ok(());
        };
        // Only a run of fine-tuning has an adapter.
        let is_tuning = key.get("fine_tune_type").is_some();
        if is_tuning == self.progress.resume_key.has("fine_tune_type") {
            return Ok(());
        }
        let kind = if is_tuning {
            "fine-tuning"
        } else {
            "pre-training"
        };
        let problem = format!("holds a run of {kind}: choose another folder");
        Err(Error::destination(&self.folder, problem))
    }

    /// Continues the metrics of a saved run after `iteration` iterations. `validates` states that
    /// the run continues with a validation, which has been recorded if it was killed after it.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn continue_metrics(&mut self, iteration: u64, validates: bool) -> Result<()> {
        if self.is_rank_zero {
            let repeated = validates.then_some(iteration);
            self.metrics = Metrics::open(&self.folder, iteration, repeated)?;
        }
        Ok(())
    }

    /// Writes the state of `trainer` and the progress.
    ///
    /// # Errors
    /// [`Error::Io`]; the previous state then stays.
    pub(super) fn save_state(&self, trainer: &Trainer) -> Result<()> {
        let path = self.state();
        let progress = serde_json::to_value(&self.progress).map_err(|error| Error::Checkpoint {
            path: path.clone(),
            problem: error.to_string(),
        })?;
        trainer.save_state(&path, &progress)
    }

    /// Records the loss of a validation; returns true if it is the lowest so far.
    ///
    /// # Errors
    /// [`Error::Diverged`] if it is not finite.
    pub(super) fn record_validation(&mut self, iteration: u64, loss: f64) -> Result<bool> {
        if !loss.is_finite() {
            return Err(Error::Diverged {
                iteration,
                loss: loss as f32,
            });
        }
        let progress = &mut self.progress;
        let is_best = progress.best.is_none_or(|best| loss < best.loss);
        if is_best {
            progress.best = Some(BestValidation { iteration, loss });
            progress.since_best = 0;
        } else {
            progress.since_best += 1;
        }
        Ok(is_best)
    }

    /// Adds an event to the queue and, if it is a metric, a line to `metrics.jsonl`.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn emit(&mut self, event: E) -> Result<()> {
        if event.is_metric() {
            self.metrics.write(&event.to_json())?;
        }
        self.events.push_back(event);
        Ok(())
    }

    /// Ends the run with its last event and unlocks the folder.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(super) fn finish(&mut self, event: E) -> Result<()> {
        self.end();
        self.emit(event)
    }

    /// Ends a run that failed before its first step or save, and removes its files.
    pub(super) fn discard(&mut self) {
        self.ended = true;
        self.metrics = Metrics::none();
        if let Some(folder) = self.lock.take() {
            folder.discard();
        }
    }

    fn end(&mut self) {
        self.ended = true;
        self.lock = None;
        self.work = None;
    }

    /// Begins or continues the work on the device. A generation may have run since the last step.
    fn begin_step(&mut self) -> Result<()> {
        if self.work.is_none() {
            self.work = Some(DeviceWork::begin()?);
        }
        match &self.work {
            Some(work) => work.enter(Phase::Training),
            None => Ok(()),
        }
    }

    fn end_step(&self) -> Result<()> {
        match &self.work {
            Some(work) => work.after_step(),
            None => Ok(()),
        }
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Path of the state file.
    pub(super) fn state(&self) -> PathBuf {
        self.folder.join(STATE_FILE)
    }

    pub(super) fn is_rank_zero(&self) -> bool {
        self.is_rank_zero
    }

    pub(super) fn best(&self) -> Option<BestValidation> {
        self.progress.best
    }

    /// Number of validations since the best one.
    pub(super) fn since_best(&self) -> u32 {
        self.progress.since_best
    }

    pub(super) fn cancel_handle(&self) -> CancelHandle {
        self.cancel.clone()
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }
}

/// A run that advances until it has an event.
pub(super) trait Advance {
    /// Type of the events.
    type Event: RunEvent;

    fn run(&mut self) -> &mut Run<Self::Event>;

    /// Runs the next step, or ends the run.
    fn advance(&mut self) -> Result<()>;
}

/// The next event of `job`. An error ends the run.
pub(super) fn next_event<A: Advance>(job: &mut A) -> Option<Result<A::Event>> {
    while job.run().events.is_empty() && !job.run().ended {
        let advanced = job.run().begin_step().and_then(|()| job.advance());
        if let Err(error) = advanced.and_then(|()| job.run().end_step()) {
            let run = job.run();
            if run.progress.trained_tokens == 0 && !run.state().exists() {
                run.discard();
            }
            run.end();
            run.events.clear();
            return Some(Err(error));
        }
    }
    job.run().events.pop_front().map(Ok)
}
