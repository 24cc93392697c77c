//! The sequences of a corpus.

use std::{path::PathBuf, sync::Arc};

use super::{
    options::CorpusOptions, producer::Producer, sequence::Sequence, state::CorpusState,
    statistics::CorpusStatistics,
};
use crate::{documents::files, error::Result, tokenizer::Tokenizer};

/// The sequences of a corpus, an iterator. They are made on a thread of their own, and tokenised
/// on all cores; the thread ends with the value. After an error nothing more comes.
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
    /// Finds the files; nothing is read before the first [`next`](Iterator::next).
    ///
    /// # Errors
    ///
    /// [`Error::Option`](crate::error::Error::Option) if an option is out of its range; [`Error::MissingFile`](crate::error::Error::MissingFile)
    /// if a file is not there or a pattern matches none; [`Error::Data`](crate::error::Error::Data)
    /// if a file has an ending that is not read, or a folder nothing to read.
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

    /// The position in the corpus: after the sequence last handed out, and those that the other
    /// ranks have with it. Small, whatever the size of the corpus.
    pub fn state(&self) -> CorpusState {
        self.state.clone()
    }

    /// Goes on from `state`: the next sequence is the one that came after it.
    ///
    /// # Errors
    ///
    /// [`Error::OtherRun`](crate::error::Error::OtherRun), with the names of the options, if the
    /// state was made with other options or other files. `rank`, `world` and `epochs` may differ, and so may the folder that the
    /// files lie in.
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

    /// The files that are read, sorted.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// Reads one epoch and counts, over all ranks; makes a dry run's figures.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open), and of the documents.
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

    /// All sequences of one epoch in order, for validation; they are held in memory.
    ///
    /// # Errors
    ///
    /// As of [`open`](Self::open), and of the documents.
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
