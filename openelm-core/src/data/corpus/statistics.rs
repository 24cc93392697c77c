//! Statistics of a corpus: its input and the sequences made of it.

use serde::{Deserialize, Serialize};

/// Statistics of input and output, over all ranks, from the start of the corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusStatistics {
    /// Epochs that were read whole.
    pub epochs: u64,
    /// Documents read.
    pub documents: u64,
    /// Fragments that they were split into.
    pub fragments: u64,
    /// Fragments left out for having too few characters.
    pub dropped_by_characters: u64,
    /// Fragments left out for having too few tokens.
    pub dropped_by_tokens: u64,
    /// Tokens of the fragments that were kept, BOS and EOS among them.
    pub tokens: u64,
    /// Sequences handed out.
    pub sequences: u64,
    /// Tokens of these that are targets of the loss.
    pub targets: u64,
    /// Tokens thrown away by truncation.
    pub truncated_tokens: u64,
    /// Positions of these sequences that are padding, of `L + 1` each.
    pub pads: u64,
    /// Sequences at the very end that are too few for all ranks, and are not handed out.
    pub left_over: u64,
    /// Files that could not be read, or not all of them.
    pub corrupt: Vec<CorruptFile>,
}

/// A file that could not be read, or not all of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorruptFile {
    /// The file.
    pub path: String,
    /// The problem with it, or with the first of its bad rows.
    pub problem: String,
    /// Rows left out, and 1 for the rest of a file; each epoch adds its own.
    pub count: u64,
}
