//! The iterator over a corpus's sequences.

use std::{path::PathBuf, sync::Arc};

use super::{
    options::CorpusOptions, producer::Producer, sequence::Sequence, state::CorpusState,
    statistics::CorpusStatistics,
};
use crate::{documents::files, error::Result, tokenizer::Tokenizer};

/// The sequences of a corpus, an iterator. A separate thread makes them and tokenises on all cores;
/// the thread ends when the value is dropped. After an error the iterator ends.
///
/// ```
/// fn send<T: Send>() {}
/// send::<openelm_core::corpus::Corpus>();
/// ```
pub struct Corpus {
    options: Arc<CorpusOptions>,
    files: Arc<Vec<PathBuf>>,
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
    /// [`Error::Option`](crate::error::Error::Option) if an option is out of range;
    /// [`Error::MissingFile`](crate::error::Error::MissingFile) if a file does not exist or a
    /// pattern matches none; [`Error::Data`](crate::error::Error::Data) if the extension of a file
    /// is not supported, or a folder has no supported file.
    pub fn open(options: CorpusOptions, tokenizer: Tokenizer) -> Result<Self> {
        options.check()?;
        let files = files::expand(&options.files)?;
        let state = CorpusState::new(&options, &files)?;
        Ok(Self {
            options: Arc::new(options),
            files: Arc::new(files),
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

    /// Statistics of the corpus up to [`state`](Self::state), over all ranks.
    pub fn statistics(&self) -> CorpusStatistics {
        self.state.statistics()
    }

    /// The files of the corpus, sorted.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
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
            Producer::start(&self.options, &self.files, &self.tokenizer, state)
        });
        match producer.next() {
            Ok((sequence, state)) => {
                self.state = state;
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
