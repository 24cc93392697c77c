//! The iterator over a corpus's sequences.

use std::{path::Path, sync::Arc};

use super::{
    group::Files,
    options::CorpusOptions,
    producer::{Made, Producer},
    sequence::Sequence,
    state::CorpusState,
    statistics::CorpusStatistics,
    streams::Streams,
};
use crate::{error::Result, tokenizer::Tokenizer};

/// The sequences of a corpus, an iterator. A separate thread makes them and tokenises on all cores;
/// the thread ends when the value is dropped. After an error the iterator ends.
///
/// ```
/// fn send<T: Send>() {}
/// send::<openelm_core::corpus::Corpus>();
/// ```
pub struct Corpus {
    options: Arc<CorpusOptions>,
    files: Arc<Files>,
    streams: Arc<Streams>,
    tokenizer: Tokenizer,
    state: CorpusState,
    producer: Option<Producer>,
    ended: bool,
}

impl Corpus {
    /// Finds the files; reading starts with the first [`next`](Iterator::next).
    ///
    /// # Errors
    ///
    /// [`Error::Option`](crate::error::Error::Option) if an option is out of range, a group has no
    /// file, or the ranks cannot share the files evenly with
    /// [`shard_files`](CorpusOptions::shard_files);
    /// [`Error::MissingFile`](crate::error::Error::MissingFile) if a file does not exist or a
    /// pattern matches none; [`Error::Data`](crate::error::Error::Data) if the extension of a file
    /// is not supported, or a folder has no supported file.
    pub fn open(options: CorpusOptions, tokenizer: Tokenizer) -> Result<Self> {
        options.check()?;
        let files = Files::find(&options)?;
        let streams = Streams::new(&options, &files)?;
        let state = CorpusState::new(&options, &files, &streams)?;
        Ok(Self {
            options: Arc::new(options),
            files: Arc::new(files),
            streams: Arc::new(streams),
            tokenizer: tokenizer.literal(),
            state,
            producer: None,
            ended: false,
        })
    }

    /// The position in the corpus: after the last returned sequence, and the sequences of the other
    /// ranks in the same round. Its size does not depend on the size of the corpus.
    pub fn state(&self) -> CorpusState {
        self.state.clone()
    }

    /// Continues from `state`: the next sequence is the one after it.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRun`](crate::error::Error::OtherRun), with the names of the options, if the
    /// state was made with other options or other files. `rank`, `world`, `epochs` and the
    /// folder of the files may differ.
    pub fn restore(&mut self, state: CorpusState) -> Result<()> {
        state.check(&self.state)?;
        self.producer = None;
        self.ended = false;
        self.state = state;
        Ok(())
    }

    /// The position of all ranks, of the `states` of the ranks, in their order, after the same number
    /// of sequences: with [`shard_files`](CorpusOptions::shard_files) each stream's of the rank that
    /// reads it, else the first, because all are equal.
    pub fn merge(&self, states: Vec<CorpusState>) -> Option<CorpusState> {
        let mut merged = states.first()?.clone();
        for (index, stream) in merged.streams.iter_mut().enumerate() {
            let rank = self.streams.rank(index, states.len());
            let own = rank.and_then(|rank| states.get(rank)?.streams.get(index));
            if let Some(own) = own {
                stream.clone_from(own);
            }
        }
        Some(merged)
    }

    /// Statistics of the corpus up to [`state`](Self::state), over all ranks; with
    /// [`shard_files`](CorpusOptions::shard_files), of this rank's files alone since the state that
    /// was restored.
    pub fn statistics(&self) -> CorpusStatistics {
        self.state.statistics()
    }

    /// The files of the corpus, in the order of the groups, sorted by path in each.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.files.paths()
    }

    /// Reads one epoch and counts, over all ranks, without training.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and errors of reading the documents.
    pub fn count(options: CorpusOptions, tokenizer: Tokenizer) -> Result<CorpusStatistics> {
        let options = CorpusOptions {
            rank: 0,
            world: 1,
            epochs: Some(1),
            ..options
        };
        let mut corpus = Self::open(options, tokenizer)?;
        for sequence in corpus.by_ref() {
            sequence?;
        }
        Ok(corpus.statistics())
    }

    /// All sequences of one epoch in order, in memory, for validation.
    ///
    /// # Errors
    ///
    /// As [`open`](Self::open), and errors of reading the documents.
    pub fn read_all(options: CorpusOptions, tokenizer: Tokenizer) -> Result<Vec<Sequence>> {
        let options = CorpusOptions {
            epochs: Some(1),
            ..options
        };
        Self::open(options, tokenizer)?.collect()
    }
}

impl Iterator for Corpus {
    type Item = Result<Sequence>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let state = &self.state;
        let producer = self.producer.get_or_insert_with(|| {
            Producer::start(
                &self.options,
                &self.files,
                &self.streams,
                &self.tokenizer,
                state,
            )
        });
        match producer.next() {
            Ok(Made {
                sequence,
                given,
                streams,
            }) => {
                self.state.given = given;
                for (index, state) in streams {
                    if let Some(place) = self.state.streams.get_mut(index) {
                        *place = state;
                    }
                }
                self.ended = sequence.is_none();
                sequence.map(Ok)
            }
            Err(error) => {
                self.ended = true;
                Some(Err(error))
            }
        }
    }
}
