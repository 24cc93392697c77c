//! The checkpoints of a run: model folders `checkpoints/step-N`, one per save.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::event::PretrainEvent;
use crate::{
    error::{Error, Remedy, Result},
    files::remove_folder,
    training::event::RunEvent,
    weights::is_model_file,
};

/// The name of the folder in a run's folder.
pub(super) const CHECKPOINTS: &str = "checkpoints";

/// The folder of the checkpoints.
pub(super) struct Checkpoints(PathBuf);

impl Checkpoints {
    /// The checkpoints of the run in `folder`.
    pub(super) fn of_run(folder: &Path) -> Self {
        Self(folder.join(CHECKPOINTS))
    }

    /// The path of the checkpoint of `iteration`.
    pub(super) fn path(&self, iteration: u64) -> PathBuf {
        self.0.join(format!("step-{iteration:06}"))
    }

    pub(super) fn create_folder(&self) -> Result<()> {
        fs::create_dir_all(&self.0).map_err(Error::io(&self.0))
    }

    /// The complete checkpoints up to the iteration `now`, oldest first.
    pub(super) fn complete(&self, now: u64) -> Result<Vec<(u64, PathBuf)>> {
        let mut found = self.up_to(now)?;
        found.retain(|(_, folder)| folder.join("config.json").is_file());
        Ok(found)
    }

    /// Removes all checkpoints up to the iteration `now` but the last `kept`. A checkpoint with
    /// files of the user stays.
    pub(super) fn remove_old(&self, now: u64, kept: usize) -> Result<()> {
        let mut complete = self.complete(now)?;
        let last = complete.split_off(complete.len().saturating_sub(kept));
        for (iteration, folder) in self.up_to(now)? {
            let is_last = last.iter().any(|(last, _)| *last == iteration);
            if !is_last && has_model_files_only(&folder)? {
                remove_folder(&folder)?;
            }
        }
        Ok(())
    }

    /// Checks that there is at most the checkpoint of a run that was killed during its first save.
    /// `state` is the missing state of the run.
    ///
    /// # Errors
    /// [`Error::MissingFile`] if the folder holds the checkpoints of several saves.
    pub(super) fn check_first(&self, state: &Path) -> Result<()> {
        if !self.0.is_dir() || self.up_to(u64::MAX)?.len() < 2 {
            return Ok(());
        }
        let problem = "there is no run to resume, and the folder holds several checkpoints";
        let remedy = Remedy::StartFrom(PretrainEvent::NEW_RUN);
        Err(Error::missing_file(state, problem).with_remedy(remedy))
    }

    /// Removes the checkpoint of a run that was killed during its first save: with other options,
    /// it would become a part of the average.
    pub(super) fn remove_first(&self) -> Result<()> {
        if !self.0.exists() {
            return Ok(());
        }
        match &self.up_to(u64::MAX)?[..] {
            [(_, only)] => remove_folder(only),
            _ => Ok(()),
        }
    }

    /// The folders of checkpoints up to the iteration `now`, oldest first.
    fn up_to(&self, now: u64) -> Result<Vec<(u64, PathBuf)>> {
        let entries = fs::read_dir(&self.0).map_err(Error::io(&self.0))?;
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
}

fn has_model_files_only(folder: &Path) -> Result<bool> {
    let mut entries = fs::read_dir(folder).map_err(Error::io(folder))?;
    Ok(entries.all(|entry| {
        let name = entry
            .ok()
            .and_then(|entry| entry.file_name().into_string().ok());
        name.is_some_and(|name| is_model_file(&name))
    }))
}
