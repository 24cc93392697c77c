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
//! 4. The fragment is normalized to NFC, or repaired as by ftfy with
//!    [`clean_text`](CorpusOptions::clean_text), and tokenised: BOS, the text, EOS. The spelling of a
//!    special token, such as `</s>`, is text.
//! 5. The fragment is dropped if it has fewer than [`min_tokens`](CorpusOptions::min_tokens)
//!    tokens.
//! 6. [`Assembly`] makes sequences of the fragments.
//!
//! Ranks of a data-parallel job share this order: of every [`world`](CorpusOptions::world)
//! sequences rank `r` takes the `r`-th. So a job has the same global batches with any number of
//! ranks, and a [`CorpusState`] is the same on all of them and can be restored with another
//! number.
//!
//! [`CorpusOptions::groups`] are a mixture: files with keys and formats of their own. Without
//! weights they are one list of files, as in CoreNet. With weights, each group makes sequences of
//! its own, and gives the share of all sequences that its weight states: the sequence `n` is of the
//! group whose part of [0, 1) contains the fraction of `n·φ`, the golden ratio. A group begins again
//! when it ends, independently of the others; with [`epochs`](CorpusOptions::epochs) the corpus ends
//! with the first group.
//!
//! With [`shard_files`](CorpusOptions::shard_files) a rank reads only files of its own, as in
//! CoreNet, whose ranks times workers are the `readers` here: each reader has every so-many-th file
//! of the shuffled list and makes sequences of its own, which the readers give in turn. The order of
//! all sequences is again the same for any number of ranks that divides the number of readers. The
//! state of the corpus is then that of all ranks, [`Corpus::merge`].
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
mod group;
mod mixture;
mod options;
mod producer;
mod reader;
mod sample;
mod sequence;
mod shuffle;
mod state;
mod statistics;
mod streams;
#[cfg(test)]
mod tests;

pub use crate::documents::FileFormat;
pub use corpus::Corpus;
pub(crate) use fragments::{normalized, prepared};
pub use group::CorpusGroup;
pub use options::{Assembly, CorpusOptions, Corrupt};
pub use sequence::{Sequence, SequenceRows};
pub use state::CorpusState;
pub use statistics::{CorpusStatistics, CorruptFile};
