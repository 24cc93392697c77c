//! Where sequences to train on come from.

use serde_json::{Value, json};

use crate::{
    data::corpus::{CorpusStatistics, Sequence},
    error::{Error, Result},
};

/// Sequences in an order that does not depend on how many processes share them: of `world`
/// processes the one of rank `r` gets numbers `r`, `r + world`, `r + 2·world` and so on.
pub trait SequenceSource: std::fmt::Debug {
    /// The next sequence of this process; `None` when there are no more.
    ///
    /// # Errors
    /// What reading can meet.
    fn next_sequence(&mut self) -> Result<Option<Sequence>>;

    /// Where it stands, for [`restore`](Self::restore) of a source of the same data, whatever the
    /// number of processes. It is asked for when all of them have got as many sequences.
    ///
    /// # Errors
    /// If it cannot be said.
    fn state(&mut self) -> Result<Value>;

    /// Goes to where a source stood.
    ///
    /// # Errors
    /// [`Error::Target`] or [`Error::Data`] if that was one of other data.
    fn restore(&mut self, state: &Value) -> Result<()>;

    /// What was read so far, that which is read ahead included; `None` if it is not counted.
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
        let words = self.sequences.iter().flat_map(|sequence| {
            let starts = sequence.document_starts.iter().map(|&start| start as u64);
            let tokens = sequence.tokens.iter().map(|&token| u64::from(token));
            [u64::MAX].into_iter().chain(starts).chain(tokens)
        });
        // FNV-1a.
        let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
            (hash ^ word).wrapping_mul(0x0100_0000_01b3)
        });
        format!("{hash:016x}")
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
        let given = state.get("given").and_then(Value::as_u64);
        let data = state.get("data").and_then(Value::as_str);
        match (given, data) {
            (Some(given), Some(data)) if data == self.fingerprint() => {
                self.given = given;
                Ok(())
            }
            _ => Err(Error::Target {
                path: "training_state.safetensors".into(),
                problem: "the run was begun with other data".into(),
            }),
        }
    }
}
