//! Text to pre-train on, read and tokenised on the fly: documents become sequences of token ids
//! in one order that depends on the files, the options and the seed alone.
//!
//! The steps are those of CoreNet's `general_lm` data set:
//!
//! 1. Files are sorted by path; from the second epoch on their order is shuffled by the seed.
//!    Reader `r` of `readers` reads every `readers`-th file from the `r`-th on, and the readers
//!    take turns, a document each (of a text file, `words_per_fragment` words). Inside a file the
//!    order is the file's, in every epoch.
//! 2. A document is split at single spaces into fragments of
//!    [`words_per_fragment`](CorpusOptions::words_per_fragment) words.
//! 3. A fragment is left out if it has fewer than
//!    [`min_characters`](CorpusOptions::min_characters) characters: lower-cased, without ASCII
//!    punctuation, white space collapsed, as SlimPajama counts.
//! 4. The fragment is brought to Unicode's form NFC and tokenised: BOS, the text, EOS. The spelling
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
pub(crate) mod corpus;
mod fragments;
mod options;
mod producer;
mod reader;
mod sequence;
mod state;
mod statistics;
#[cfg(test)]
mod tests;

pub use corpus::Corpus;
pub(crate) use fragments::normalized;
pub use options::{Assembly, CorpusOptions, Corrupt};
pub use sequence::{Sequence, SequenceRows};
pub use state::CorpusState;
pub use statistics::{CorpusStatistics, CorruptFile};
