//! A corpus as a source of sequences, in its own order or shuffled.

use std::fmt;

use rand_chacha::{ChaCha8Rng, rand_core::SeedableRng};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::source::{SequenceSource, other_data, sequences_bytes};
use crate::{
    data::corpus::{Assembly, Corpus, CorpusOptions, CorpusState, CorpusStatistics, Sequence},
    error::{Error, Result},
    mlx::memory,
    seed,
    tokenizer::Tokenizer,
    training::state::STATE_FILE,
};

/// Sequences of a corpus. Corpora often group similar documents; shuffling mixes blocks of some
/// thousand consecutive sequences, in an order that depends on the seed and the block's index.
pub struct CorpusSource {
    corpus: Corpus,
    rank: u64,
    world: u64,
    seed: u64,
    /// Sequences per shuffled block; 0 disables shuffling.
    block: u64,
    /// Tokens per sequence, if all have the same number.
    length: Option<usize>,
    is_sharded: bool,
    /// Sequences that all processes have received.
    given: u64,
    loaded: Option<Block>,
}

/// A block of consecutive sequences, shuffled.
struct Block {
    /// Index, from 0.
    number: u64,
    begin: CorpusState,
    sequences: Vec<Sequence>,
}

#[derive(Serialize, Deserialize)]
struct State {
    /// State at the start of the block of the next sequence.
    corpus: CorpusState,
    shuffle: u64,
    given: u64,
}

impl CorpusSource {
    /// Default number of sequences per shuffled block: 4096 for [`Assembly::Pack`], which puts the
    /// fragments of a document one after another, and 0 for [`Assembly::Truncate`], as in CoreNet.
    pub fn default_shuffle(assembly: Assembly) -> usize {
        match assembly {
            Assembly::Pack => 4096,
            Assembly::Truncate => 0,
        }
    }

    /// The sequences of `options`, shuffled in blocks of `shuffle`; 0 keeps the corpus's order.
    /// Default [`default_shuffle`](Self::default_shuffle), and 0 with
    /// [`shard_files`](CorpusOptions::shard_files). With shuffling, every process reads and tokenises
    /// the whole corpus and takes its own sequences.
    ///
    /// # Errors
    /// As [`Corpus::open`]; [`Error::Option`] for shuffling with
    /// [`shard_files`](CorpusOptions::shard_files).
    pub fn open(
        options: CorpusOptions,
        tokenizer: Tokenizer,
        shuffle: Option<usize>,
    ) -> Result<Self> {
        let shuffle = match shuffle {
            Some(count) if options.shard_files && count > 0 => {
                let problem = format!(
                    "expected 0 with shard_files, where no process has the sequences of all, \
                     found {count}"
                );
                return Err(Error::option("shuffle", problem));
            }
            Some(count) => count,
            None if options.shard_files => 0,
            None => Self::default_shuffle(options.assembly),
        };
        let is_sharded = options.shard_files;
        let (rank, world) = (options.rank as u64, options.world as u64);
        let seed = options.seed;
        let length = match options.assembly {
            Assembly::Pack => Some(options.sequence_length),
            Assembly::Truncate => None,
        };
        memory::check_fits("shuffle", shuffle, sequences_bytes(shuffle, length))?;
        let options = if shuffle == 0 {
            options
        } else {
            CorpusOptions {
                rank: 0,
                world: 1,
                ..options
            }
        };
        Ok(Self {
            corpus: Corpus::open(options, tokenizer)?,
            rank,
            world,
            seed,
            block: shuffle as u64,
            length,
            is_sharded,
            given: 0,
            loaded: None,
        })
    }

    /// Loads the block of the sequence `number`.
    fn load(&mut self, number: u64) -> Result<()> {
        let expected = number / self.block;
        let mut next = match &self.loaded {
            Some(block) if block.number == expected => return Ok(()),
            Some(block) => block.number + 1,
            None => self.given / self.block,
        };
        loop {
            let begin = self.corpus.state();
            let sequences = self.corpus.by_ref().take(self.block as usize);
            let mut sequences = sequences.collect::<Result<Vec<_>>>()?;
            shuffle(&mut sequences, self.seed, next);
            self.loaded = Some(Block {
                number: next,
                begin,
                sequences,
            });
            if next >= expected {
                return Ok(());
            }
            next += 1;
        }
    }
}

impl SequenceSource for CorpusSource {
    fn next_sequence(&mut self) -> Result<Option<Sequence>> {
        if self.block == 0 {
            let next = self.corpus.next().transpose()?;
            self.given += if next.is_some() { self.world } else { 0 };
            return Ok(next);
        }
        let number = self.given + self.rank;
        self.load(number)?;
        let block = self.loaded.as_mut();
        let place = (number % self.block) as usize;
        let found = block.and_then(|block| block.sequences.get_mut(place));
        let Some(found) = found else {
            return Ok(None);
        };
        self.given += self.world;
        Ok(Some(std::mem::replace(
            found,
            Sequence {
                tokens: Vec::new(),
                document_starts: Vec::new(),
            },
        )))
    }

    fn state(&mut self) -> Result<Value> {
        let corpus = match &self.loaded {
            Some(block) if self.given < (block.number + 1) * self.block => block.begin.clone(),
            _ => self.corpus.state(),
        };
        let state = State {
            corpus,
            shuffle: self.block,
            given: self.given,
        };
        serde_json::to_value(state).map_err(|error| malformed(&error))
    }

    fn restore(&mut self, state: &Value) -> Result<()> {
        let state: State =
            serde_json::from_value(state.clone()).map_err(|error| malformed(&error))?;
        if state.shuffle != self.block {
            let (expected, found) = (state.shuffle, self.block);
            return Err(other_data(
                "shuffle",
                expected.to_string(),
                found.to_string(),
            ));
        }
        self.corpus.restore(state.corpus)?;
        self.given = state.given;
        self.loaded = None;
        Ok(())
    }

    fn is_sharded(&self) -> bool {
        self.is_sharded
    }

    fn merge(&self, states: Vec<Value>) -> Result<Value> {
        let read = |state: Value| -> Result<State> {
            serde_json::from_value(state).map_err(|error| malformed(&error))
        };
        let states = states.into_iter().map(read);
        let states = states.collect::<Result<Vec<_>>>()?;
        let given = states.first().map_or(0, |state| state.given);
        let corpora = states.into_iter().map(|state| state.corpus).collect();
        let state = State {
            corpus: self.corpus.merge(corpora).unwrap_or(self.corpus.state()),
            shuffle: self.block,
            given,
        };
        serde_json::to_value(state).map_err(|error| malformed(&error))
    }

    fn sequence_length(&self) -> Option<usize> {
        self.length
    }

    fn statistics(&self) -> Option<CorpusStatistics> {
        Some(self.corpus.statistics())
    }
}

impl fmt::Debug for CorpusSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CorpusSource")
            .field("files", &self.corpus.files().count())
            .field("shuffle", &self.block)
            .finish_non_exhaustive()
    }
}

/// Shuffles with a random stream per block.
fn shuffle<T>(items: &mut [T], seed: u64, block: u64) {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    random.set_stream(block);
    seed::shuffle(items, &mut random);
}

fn malformed(error: &serde_json::Error) -> Error {
    Error::Checkpoint {
        path: STATE_FILE.into(),
        problem: format!("the state of the data: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tokenizer::Tokenizer;
    use openelm_testing::{TempFile, tales};

    fn tokenizer() -> Tokenizer {
        Tokenizer::from_file(tales().join("tokenizer.json")).unwrap()
    }

    /// A file of stories.
    struct File(TempFile);

    impl File {
        fn new() -> Self {
            let rows = (0..60).map(|i| {
                let text = format!("Story {i}: {}", "there was a bear. ".repeat(3 + i % 7));
                serde_json::json!({ "text": text }).to_string() + "\n"
            });
            Self(TempFile::new("stories.jsonl", rows.collect::<String>()))
        }

        fn source(&self, (rank, world): (usize, usize), shuffle: usize) -> CorpusSource {
            let options = CorpusOptions {
                files: vec![self.0.to_path_buf()],
                sequence_length: 16,
                rank,
                world,
                epochs: Some(2),
                ..CorpusOptions::default()
            };
            CorpusSource::open(options, tokenizer(), Some(shuffle)).unwrap()
        }
    }

    fn all(source: &mut CorpusSource) -> Vec<Sequence> {
        std::iter::from_fn(|| source.next_sequence().unwrap()).collect()
    }

    #[test]
    fn shuffles_within_blocks() {
        let file = File::new();
        let plain = all(&mut file.source((0, 1), 0));
        assert!(plain.len() > 100, "{}", plain.len());
        for block in [7, 32, 10_000] {
            let shuffled = all(&mut file.source((0, 1), block));
            assert_ne!(plain, shuffled);
            // Within each block only.
            for (plain, shuffled) in plain.chunks(block).zip(shuffled.chunks(block)) {
                let sorted = |sequences: &[Sequence]| {
                    let mut tokens: Vec<_> = sequences.iter().map(|s| s.tokens.clone()).collect();
                    tokens.sort();
                    tokens
                };
                assert_eq!(sorted(plain), sorted(shuffled));
            }
        }
    }

    #[test]
    fn ranks_share_one_order_and_may_change_in_number() {
        let file = File::new();
        for shuffle in [0, 7, 32] {
            let expected = all(&mut file.source((0, 1), shuffle));
            for world in [1, 2, 4] {
                let sources = (0..world).map(|rank| file.source((rank, world), shuffle));
                let mut sources: Vec<CorpusSource> = sources.collect();
                let next = |count: usize, sources: &mut Vec<CorpusSource>| -> Vec<Sequence> {
                    let mut parts = Vec::new();
                    for _ in 0..count / sources.len() {
                        for source in sources.iter_mut() {
                            parts.push(source.next_sequence().unwrap().unwrap());
                        }
                    }
                    parts
                };
                // Before, and at, the borders of blocks.
                for place in [0, 4, 28, 32, 56, 64, 68] {
                    let mut fresh: Vec<CorpusSource> = (0..world)
                        .map(|rank| file.source((rank, world), shuffle))
                        .collect();
                    assert_eq!(next(place, &mut fresh), expected[..place]);
                    let state = fresh[0].state().unwrap();
                    for source in &mut fresh {
                        assert_eq!(source.state().unwrap(), state, "{shuffle} {world} {place}");
                    }
                    for others in [1, 2] {
                        let mut then: Vec<CorpusSource> = (0..others)
                            .map(|rank| file.source((rank, others), shuffle))
                            .collect();
                        for source in &mut then {
                            source.restore(&state).unwrap();
                        }
                        let found = next(20, &mut then);
                        assert_eq!(
                            found,
                            expected[place..place + 20],
                            "{shuffle} {world} {place}"
                        );
                    }
                }
                assert_eq!(next(40, &mut sources), expected[..40]);
            }
        }
    }

    #[test]
    fn rejects_another_shuffle() {
        let file = File::new();
        let state = file.source((0, 1), 8).state().unwrap();
        let error = file.source((0, 1), 9).restore(&state).unwrap_err();
        assert!(
            error.to_string().contains("shuffle: expected 8, found 9"),
            "{error}"
        );
    }
}
