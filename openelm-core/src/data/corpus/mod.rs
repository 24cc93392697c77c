//! Text for pre-training, read and tokenised on the fly: documents become sequences of token ids in
//! an order that depends only on the files, the options and the seed.
//!
//! The steps follow CoreNet's `general_lm` data set:
//!
//! 1. Files are sorted by path; from the second epoch their order is shuffled by the seed. Reader
//!    `r` of `readers` reads every `readers`-th file from the `r`-th, and the readers take turns,
//!    one document each (of a text file, `words_per_fragment` words). The order within a file is
//!    the same in every epoch.
//! 2. A document is split at single spaces into fragments of
//!    [`words_per_fragment`](CorpusOptions::words_per_fragment) words.
//! 3. A fragment is dropped if it has fewer than
//!    [`min_characters`](CorpusOptions::min_characters) characters: lower-cased, without ASCII
//!    punctuation, white space collapsed, as SlimPajama counts.
//! 4. The fragment is normalized to NFC and tokenised: BOS, the text, EOS. The spelling of a
//!    special token, such as `</s>`, is text.
//! 5. The fragment is dropped if it has fewer than [`min_tokens`](CorpusOptions::min_tokens)
//!    tokens.
//! 6. [`Assembly`] makes sequences of the fragments.
//!
//! Ranks of a data-parallel job share this order: of every [`world`](CorpusOptions::world)
//! sequences rank `r` takes the `r`-th. So a job has the same global batches with any number of
//! ranks, and a [`CorpusState`] is the same on all of them and can be restored with another
//! number. (CoreNet stripes files over ranks; its `readers` is ranks times workers.)
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
mod sample;
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
