//! Sources of training sequences.

use serde_json::{Value, json};

use super::validation::fingerprint;
use crate::{
    data::corpus::{CorpusStatistics, Sequence},
    error::{Error, Result, RunDifference},
    training::state::STATE_FILE,
};

/// Sequences in an order that does not depend on the number of processes: of `world` processes,
/// rank `r` receives the sequences `r`, `r + world`, `r + 2·world` and so on.
pub trait SequenceSource: std::fmt::Debug {
    /// The next sequence of this process; `None` when there are no more.
    ///
    /// # Errors
    /// Errors of reading the data.
    fn next_sequence(&mut self) -> Result<Option<Sequence>>;

    /// The position, for [`restore`](Self::restore) of a source of the same data, with any number
    /// of processes. Called when all processes have received the same number of sequences.
    ///
    /// # Errors
    /// If the position is not available.
    fn state(&mut self) -> Result<Value>;

    /// Moves to a saved position.
    ///
    /// # Errors
    /// [`Error::OtherRun`] if the position is of other data or options.
    fn restore(&mut self, state: &Value) -> Result<()>;

    /// True if each process has a state of its own, and a save needs those of all; see
    /// [`merge`](Self::merge).
    fn is_sharded(&self) -> bool {
        false
    }

    /// The state of all processes, of the `states` of the processes in the order of their ranks.
    ///
    /// # Errors
    /// [`Error::Checkpoint`] if a state is malformed.
    fn merge(&self, states: Vec<Value>) -> Result<Value> {
        Ok(states.into_iter().next().unwrap_or_default())
    }

    /// Tokens per sequence, `L`; `None` if they differ or are not known before they are read.
    fn sequence_length(&self) -> Option<usize> {
        None
    }

    /// Counts of the data read so far, including data read ahead; `None` if it is not counted.
    fn statistics(&self) -> Option<CorpusStatistics> {
        None
    }
}

/// Least number of bytes of `count` sequences of `length` tokens.
pub(super) fn sequences_bytes(count: usize, length: Option<usize>) -> u128 {
    let tokens = size_of::<u32>() * length.map_or(2, |length| length.saturating_add(1));
    (size_of::<Sequence>() + tokens) as u128 * count as u128
}

/// Sequences in memory, in a fixed order, repeated.
#[derive(Debug, Clone)]
pub struct MemorySource {
    sequences: Vec<Sequence>,
    rank: usize,
    world: usize,
    /// Number of passes; `None` is unlimited.
    epochs: Option<u64>,
    /// Sequences that all processes have received.
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

/// The error of a source that differs from the saved run's source.
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
