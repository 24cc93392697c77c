//! A trainer's state in one file: parameters, their moving average, the optimizer's state,
//! accumulated gradients and counters. One rename replaces it, so the parts are consistent.

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::trainer::Trainer;
use crate::{
    error::{Error, Result},
    weights::{PendingTensor, Tensors, tensor_file},
};

/// File name of a run's state.
pub(crate) const STATE_FILE: &str = "training_state.safetensors";

const KEY: &str = "training_state";

/// The position of a run of another program.
#[derive(Debug)]
pub(super) struct Position {
    /// Number of updates of the run, which the learning rate depends on.
    pub(super) iteration: u64,
    /// Number of updates in the optimizer's moments; less than `iteration` if the run began again.
    pub(super) updates: u64,
    /// The optimizer's arrays, as [`restore`](Trainer::restore) names them.
    pub(super) slots: Tensors,
    /// The moving average of the parameters.
    pub(super) average: Option<Tensors>,
}

/// The file's metadata.
#[derive(Serialize, Deserialize)]
pub(super) struct Counters {
    pub(super) iteration: u64,
    pub(super) updates: u64,
    /// The caller's own value.
    caller: Value,
}

impl Trainer {
    /// Writes the state to `path` atomically, with `caller`, which [`restore`](Self::restore)
    /// returns.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be written, [`Error::Diverged`] if a parameter is not
    /// finite; an existing file stays.
    pub fn save_state(&self, path: &Path, caller: &Value) -> Result<()> {
        self.check_usable()?;
        if self.trainable.check_finite(&self.parameters).is_err() {
            return Err(Error::Diverged {
                iteration: self.iteration,
                loss: f32::NAN,
            });
        }
        let counters = Counters {
            iteration: self.iteration,
            updates: self.optimizer.updates(),
            caller: caller.clone(),
        };
        let counters = serde_json::to_string(&counters).map_err(|error| Error::Checkpoint {
            path: path.to_path_buf(),
            problem: error.to_string(),
        })?;
        let tensors = self.saved_tensors().into_iter();
        let tensors: Vec<PendingTensor<'_>> = tensors.map(|(_, tensor)| tensor).collect();
        tensor_file::save_pending(path, &tensors, (KEY, &counters))
    }

    /// The tensors of the state, each with the number of its parameter.
    pub(super) fn saved_tensors(&self) -> Vec<(usize, PendingTensor<'_>)> {
        let mut all = Vec::new();
        let kept = [
            Some(&self.parameters),
            self.average.as_ref(),
            self.gathered.as_ref(),
        ];
        for (group, arrays) in ["parameter", "average", "gathered"].into_iter().zip(kept) {
            let named = self
                .trainable
                .names()
                .iter()
                .zip(arrays.into_iter().flatten());
            let named = named.enumerate();
            all.extend(
                named.map(|(index, (name, array))| (index, format!("{group}:{name}"), array)),
            );
        }
        let slots = self.optimizer.named();
        all.extend(slots.map(|(index, name, array)| (index, format!("optimizer:{name}"), array)));
        let pending = all.into_iter();
        pending
            .map(|(index, name, array)| (index, self.pending(index, name, array)))
            .collect()
    }

    /// Continues from `position`. A trainer with a moving average takes the average of the position;
    /// without one, its average begins with the parameters.
    ///
    /// # Errors
    /// The name of an array of the optimizer or the average that is missing or has another shape.
    pub(super) fn set_position(&mut self, position: Position) -> Result<(), String> {
        self.optimizer.restore(position.slots, position.updates)?;
        if let (Some(average), Some(mut found)) = (&mut self.average, position.average) {
            for (name, array) in self.trainable.names().iter().zip(average) {
                *array = found.remove(name).ok_or_else(|| name.clone())?;
            }
        }
        self.iteration = position.iteration;
        Ok(())
    }

    /// The caller's own value in the state file `path`, without reading the tensors.
    ///
    /// # Errors
    /// As [`restore`](Self::restore).
    pub fn caller_of(path: &Path) -> Result<Value> {
        Ok(counters(path)?.caller)
    }

    /// Restores the state in `path`; returns the caller's value.
    ///
    /// # Errors
    /// [`Error::Io`], [`Error::Checkpoint`] if the file is malformed or belongs to another adapter
    /// or optimizer.
    pub fn restore(&mut self, path: &Path) -> Result<Value> {
        let wrong = |problem: String| Error::Checkpoint {
            path: path.to_path_buf(),
            problem,
        };
        let counters = counters(path)?;
        let mut groups: [Tensors; 4] = Default::default();
        for (name, array) in tensor_file::load(path)? {
            let known = ["parameter", "optimizer", "gathered", "average"];
            let split = name.split_once(':').and_then(|(group, name)| {
                Some((known.iter().position(|known| *known == group)?, name))
            });
            match split.and_then(|(group, name)| Some((groups.get_mut(group)?, name))) {
                Some((group, name)) => _ = group.insert(name.to_owned(), array),
                None => return Err(wrong(format!("tensor `{name}` is not part of a state"))),
            }
        }
        let [mut parameters, optimizer, mut gathered, mut averages] = groups;
        let missing = |name: &str| {
            wrong(format!(
                "`{name}` is missing or has another shape: the state belongs to another run"
            ))
        };
        let mut restored = Vec::with_capacity(self.parameters.len());
        for (name, old) in self.trainable.names().iter().zip(&self.parameters) {
            match parameters.remove(name) {
                Some(found) if found.shape() == old.shape() => restored.push(found),
                _ => return Err(missing(name)),
            }
        }
        if let Some(name) = parameters.keys().next() {
            return Err(wrong(format!(
                "`{name}` is not trained here: the state belongs to another run"
            )));
        }
        let sums = if gathered.is_empty() {
            None
        } else {
            let names = self.trainable.names().iter();
            let sums = names.map(|name| gathered.remove(name).ok_or_else(|| missing(name)));
            Some(sums.collect::<Result<Vec<_>>>()?)
        };
        if let Some(average) = &mut self.average {
            for (name, average) in self.trainable.names().iter().zip(average) {
                *average = averages.remove(name).ok_or_else(|| missing(name))?;
            }
        }
        self.optimizer
            .restore(optimizer, counters.updates)
            .map_err(|name| missing(&name))?;
        self.parameters = restored;
        self.cast_parameters()?;
        self.gathered = sums;
        self.iteration = counters.iteration;
        Ok(counters.caller)
    }
}

pub(super) fn counters(path: &Path) -> Result<Counters> {
    serde_json::from_str(&tensor_file::metadata(path, KEY)?).map_err(|error| Error::Checkpoint {
        path: path.to_path_buf(),
        problem: format!("its counters are malformed: {error}"),
    })
}
