//! Statistics of a corpus: its input and its sequences.

use serde::{Deserialize, Serialize};

/// Statistics of input and output, over all ranks, from the start of the corpus.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorpusStatistics {
    /// Complete epochs.
    pub epochs: u64,
    /// Documents read.
    pub documents: u64,
    /// Fragments of these documents.
    pub fragments: u64,
    /// Fragments dropped because of too few characters.
    pub dropped_by_characters: u64,
    /// Fragments dropped because of too few tokens.
    pub dropped_by_tokens: u64,
    /// Tokens of the kept fragments, including BOS and EOS.
    pub tokens: u64,
    /// Number of sequences.
    pub sequences: u64,
    /// Tokens of the sequences that are targets of the loss.
    pub targets: u64,
    /// Tokens dropped by truncation.
    pub truncated_tokens: u64,
    /// Padding positions of the sequences, of `L + 1` each.
    pub pads: u64,
    /// Last sequences of the corpus that are too few for all ranks, and are not returned.
    pub left_over: u64,
    /// Files that are not or only partly readable.
    pub corrupt: Vec<CorruptFile>,
}

/// A file that is not or only partly readable.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CorruptFile {
    /// The file.
    pub path: String,
    /// The problem of the file, or of its first bad row.
    pub problem: String,
    /// Skipped rows, and 1 for the rest of a file; each epoch adds its own.
    pub count: u64,
}
