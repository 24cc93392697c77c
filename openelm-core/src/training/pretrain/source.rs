//! Where sequences to train on come from.

use serde_json::{Value, json};

use super::validation::fingerprint;
use crate::{
    data::corpus::{CorpusStatistics, Sequence},
    error::{Error, Result, RunDifference},
    training::state::STATE_FILE,
};

/// Sequences in an order that does not depend on how many processes share them: of `world`
/// processes the one of rank `r` gets numbers `r`, `r + world`, `r + 2·world` and so on.
pub trait SequenceSource: std::fmt::Debug {
    /// The next sequence of this process; `None` when there are no more.
    ///
    /// # Errors
    /// As of reading the data.
    fn next_sequence(&mut self) -> Result<Option<Sequence>>;

    /// Its position, for [`restore`](Self::restore) of a source of the same data, whatever the
    /// number of processes. Called when all processes have got as many sequences.
    ///
    /// # Errors
    /// If it cannot be said.
    fn state(&mut self) -> Result<Value>;

    /// Goes to the position that a source had.
    ///
    /// # Errors
    /// [`Error::OtherRun`] if that was one of other data or options.
    fn restore(&mut self, state: &Value) -> Result<()>;

    /// Counts of the data that was read, with what was read ahead; `None` if it is not counted.
    fn statistics(&self) -> Option<CorpusStatistics> {
        None
    }
}

/// Sequences in memory, in their order, again and again.
#[derive(Debug, Clone)]
pub struct MemorySource {
    sequences: Vec<Sequence>,
    rank: usize,
    world: usize,
    /// Passes; `None` is without end.
    epochs: Option<u64>,
    /// Sequences that all processes got.
    given: u64,
}

impl MemorySource {
    /// The sequences of the process `rank` of `world`.
    pub fn new(sequences: Vec<Sequence>, (rank, world): (usize, usize)) -> Self {
        Self {
            sequences,
            rank,
            world: world.max(1),
            epochs: None,
            given: 0,
        }
    }

    /// Ends after `epochs` passes.
    pub fn epochs(mut self, epochs: u64) -> Self {
        self.epochs = Some(epochs);
        self
    }

    fn fingerprint(&self) -> String {
        fingerprint(&self.sequences)
    }
}

impl SequenceSource for MemorySource {
    fn next_sequence(&mut self) -> Result<Option<Sequence>> {
        let count = self.sequences.len() as u64;
        let number = self.given + self.rank as u64;
        let Some(place) = number.checked_rem(count) else {
            return Ok(None);
        };
        if self.epochs.is_some_and(|epochs| number / count >= epochs) {
            return Ok(None);
        }
        self.given += self.world as u64;
        Ok(self.sequences.get(place as usize).cloned())
    }

    fn state(&mut self) -> Result<Value> {
        Ok(json!({ "given": self.given, "data": self.fingerprint() }))
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let malformed = |key: &str| Error::Checkpoint {
            path: STATE_FILE.into(),
            problem: format!("the state of the data has no `{key}`"),
        };
        let given = state.get("given").and_then(Value::as_u64);
        let given = given.ok_or_else(|| malformed("given"))?;
        let data = state.get("data").and_then(Value::as_str);
        let data = data.ok_or_else(|| malformed("data"))?;
        let found = self.fingerprint();
        if data != found {
            return Err(other_data("data", data.to_owned(), found));
        }
        self.given = given;
        Ok(())
    }
}

/// The error of a source that is not the one of a saved run.
pub(super) fn other_data(option: &str, expected: String, found: String) -> Error {
    Error::OtherRun {
        path: STATE_FILE.into(),
        differences: vec![RunDifference {
            option: option.to_owned(),
            expected,
            found,
        }],
    }
}
