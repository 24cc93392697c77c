//! The state of a trainer whose parameters are kept in parts. Its file is that of whole parameters,
//! so that a run continues with any number of processes.

use std::path::Path;

use mlx_rs::Array;

use super::{
    sharding::Sharding,
    state::{Counters, counters},
    trainer::Trainer,
};
use crate::{
    error::{Error, Result},
    weights::{Checkpoint, PendingTensor, Readers},
};

impl Trainer {
    /// True if the processes of a group keep parts of the parameters.
    pub(crate) fn is_sharded(&self) -> bool {
        self.sharding.is_some()
    }

    /// Takes part in rank 0's writing of [`weights`](Self::weights), if they are sharded.
    pub(crate) fn contribute_weights(&self) -> Result<()> {
        self.contribute(self.weights())
    }

    /// Like [`contribute_weights`](Self::contribute_weights), for
    /// [`averaged_weights`](Self::averaged_weights).
    pub(crate) fn contribute_average(&self) -> Result<()> {
        self.contribute(self.averaged_weights().unwrap_or_default())
    }

    /// Like [`contribute_weights`](Self::contribute_weights), for
    /// [`save_state`](Self::save_state).
    pub(crate) fn contribute_state(&self) -> Result<()> {
        let tensors = self.saved_tensors().into_iter();
        self.contribute(tensors.map(|(_, tensor)| tensor).collect())
    }

    fn contribute(&self, tensors: Vec<PendingTensor<'_>>) -> Result<()> {
        if !self.is_sharded() {
            return Ok(());
        }
        tensors
            .iter()
            .try_for_each(|tensor| (tensor.make)().map(drop))
    }

    /// A tensor of the shape of the parameter `index`, whose array or own part is `array`.
    pub(super) fn pending<'a>(
        &'a self,
        index: usize,
        name: String,
        array: &'a Array,
    ) -> PendingTensor<'a> {
        let mut pending = PendingTensor::new(name, array);
        if let Some(sharding) = &self.sharding
            && let Some(shape) = sharding.shapes().get(index)
        {
            pending.shape.clone_from(shape);
            pending.make = Box::new(move || sharding.whole_of(index, array));
        }
        pending
    }

    /// Restores the state in `path`, which rank 0 reads; other ranks ignore it. All processes must
    /// call it.
    ///
    /// # Errors
    /// As [`restore`](Self::restore), in rank 0; in the others [`Error::Group`].
    pub(super) fn restore_sharded(&mut self, path: &Path, sharding: &Sharding) -> Result<()> {
        let group = sharding.group();
        let mut file = match group.rank() {
            0 => Some(StateFile::open(path, self)?),
            _ => None,
        };
        let found = file.as_ref().map(|file| &file.counters);
        let found = found.map(|counters| [counters.iteration, counters.updates]);
        let [iteration, updates] = group.counters_from_first(found.unwrap_or_default())?;
        let names: Vec<(usize, String)> = self
            .saved_tensors()
            .into_iter()
            .map(|(index, tensor)| (index, tensor.name))
            .collect();
        let mut parts = Vec::with_capacity(names.len());
        for (index, name) in &names {
            let whole = match &mut file {
                Some(file) => Some(file.readers.next().take(name)?),
                None => None,
            };
            parts.push(sharding.part_from_first(*index, whole)?);
        }
        // In the order of `saved_tensors`.
        let places = self
            .parameters
            .iter_mut()
            .chain(self.average.iter_mut().flatten())
            .chain(self.optimizer.arrays_mut());
        for (place, part) in places.zip(parts) {
            *place = part;
        }
        self.iteration = iteration;
        self.optimizer.set_updates(updates);
        Ok(())
    }
}

/// A state's file with the tensors of a trainer.
struct StateFile {
    counters: Counters,
    readers: Readers,
}

impl StateFile {
    fn open(path: &Path, trainer: &Trainer) -> Result<Self> {
        let counters = counters(path)?;
        let checkpoint = Checkpoint::open_file(path)?;
        let mut found = checkpoint.tensors().clone();
        for (_, tensor) in trainer.saved_tensors() {
            let shape = tensor.shape.iter().map(|&n| n as usize);
            let stored = found.remove(&tensor.name);
            if stored.is_none_or(|stored| !shape.eq(stored.shape.iter().copied())) {
                let problem = format!(
                    "`{}` is missing or has another shape: the state belongs to another run",
                    tensor.name
                );
                return Err(Error::checkpoint(path, problem));
            }
        }
        if let Some(name) = found.keys().next() {
            let problem = format!("tensor `{name}` is not part of the state of this run");
            return Err(Error::checkpoint(path, problem));
        }
        Ok(Self {
            readers: Readers::open(&checkpoint)?,
            counters,
        })
    }
}
