//! Text to pre-train on, read and tokenised on the fly: documents become sequences of token ids
//! in one order that depends on the files, the options and the seed alone.
//!
//! The steps are those of CoreNet's `general_lm` data set:
//!
//! 1. Files are sorted by path; from the second epoch on their order is shuffled by the seed.
//!    Reader `r` of `readers` reads every `readers`-th file from the `r`-th on, and the readers
//!    take turns, a document each (of a text file, `words_per_piece` words). Inside a file the
//!    order is the file's, in every epoch.
//! 2. A document is split at single spaces into pieces of
//!    [`words_per_piece`](CorpusOptions::words_per_piece) words.
//! 3. A piece is left out if it has fewer than
//!    [`min_characters`](CorpusOptions::min_characters) characters: lower-cased, without ASCII
//!    punctuation, white space collapsed, as SlimPajama counts.
//! 4. The piece is brought to Unicode's form NFC and tokenised: BOS, the text, EOS. The spelling
//!    of a special token, such as `</s>`, is text.
//! 5. It is left out if that gives fewer than [`min_tokens`](CorpusOptions::min_tokens) tokens.
//! 6. [`Assembly`] makes sequences of it.
//!
//! Ranks of a data-parallel job share that order: of every [`world`](CorpusOptions::world)
//! sequences rank `r` takes the `r`-th. So a job sees the same global batches with any number of
//! ranks, and a [`CorpusState`] is the same on all of them and can be restored with another
//! number. (CoreNet stripes files over ranks; there, `readers` is ranks times workers.)
//!
//! ```no_run
//! use openelm_core::Tokenizer;
//! use openelm_core::corpus::{Corpus, CorpusOptions};
//!
//! # fn main() -> openelm_core::Result<()> {
//! let tokenizer = Tokenizer::from_file("tokenizer.json")?;
//! let options = CorpusOptions { files: vec!["shards/*.jsonl.zst".into()], ..Default::default() };
//! let mut corpus = Corpus::open(options, tokenizer)?;
//! for sequence in corpus.by_ref().take(8) {
//!     println!("{} tokens", sequence?.tokens.len());
//! }
//! let state = corpus.state();
//! # Ok(())
//! # }
//! ```

mod assemble;
mod column;
mod files;
mod options;
mod pieces;
mod producer;
mod reader;
#[cfg(test)]
pub(crate) mod scratch;
mod sequence;
mod source;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;
use crate::tokenizer::Tokenizer;

pub use options::{Assembly, CorpusOptions, Corrupt};
pub(crate) use pieces::normalized;
pub use sequence::{Sequence, SequenceRows};
pub use state::CorpusState;
pub use statistics::{CorpusStatistics, CorruptFile};

use producer::Producer;
use source::{Found, Source};

/// Words of a text file that a tokenizer's training reads at once.
const WORDS: usize = 2048;

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
    /// [`Error::Option`](crate::Error::Option) if an option is out of its range; [`Error::MissingFile`](crate::Error::MissingFile)
    /// if a file is not there or a pattern matches none; [`Error::Data`](crate::Error::Data)
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

    /// Where the corpus stands: after the sequence last handed out, and those that the other
    /// ranks have with it. Small, whatever the size of the corpus.
    pub fn state(&self) -> CorpusState {
        self.state.clone()
    }

    /// Goes on from `state`: the next sequence is the one that came after it.
    ///
    /// # Errors
    ///
    /// [`Error::Option`](crate::Error::Option), with the name of the option, if the state was made with other options
    /// or other files. `rank`, `world` and `epochs` may differ, and so may the folder that the
    /// files lie in.
    pub fn restore(&mut self, state: CorpusState) -> Result<()> {
        state.check(&self.state)?;
        self.producer = None;
        self.ended = false;
        self.state = state;
        Ok(())
    }

    /// What was read and made up to [`state`](Self::state), over all ranks.
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

/// Hands `each` the text of all documents of `files`, in order; a text file comes in parts, of
/// which all but the first go on with what came before.
///
/// # Errors
///
/// Of the first file or row that cannot be read.
pub(crate) fn documents(
    files: &[PathBuf],
    key: &str,
    mut each: impl FnMut(&Path, &str, bool),
) -> Result<()> {
    for path in files::expand(files)? {
        let mut source = Source::open(&path, key, WORDS, 0)?;
        loop {
            match source.next() {
                Found::Document { text, continues } => each(&path, &text, continues),
                Found::BadRow(error) | Found::BadFile(error) => return Err(error),
                Found::End => break,
            }
        }
    }
    Ok(())
}
