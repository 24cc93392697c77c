//! Options of a corpus.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Options of a corpus: files, filters and assembly of sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusOptions {
    /// Files, folders (with subfolders) and patterns such as `shards/*.parquet`. The extension
    /// determines the format: rows of JSON (`.jsonl`) or one document (`.txt`), both also as `.gz`
    /// and `.zst`, or `.parquet`; `.json.gz`, `.json.zst` and any other `.zst` have rows of JSON.
    pub files: Vec<PathBuf>,
    /// Key of the text in a row of JSON, or name of the parquet column. Of several, separated by
    /// commas, the first one that the row or file has counts: `content,text` for a mixture with
    /// RefinedWeb. Default `text`.
    pub text_key: String,
    /// Input tokens per sequence, `L`. Default 2048.
    pub sequence_length: usize,
    /// Words per fragment; a document is split at single spaces. Default 2048.
    pub words_per_fragment: usize,
    /// Minimum number of characters of a fragment, as SlimPajama counts them. Default 0, with
    /// [`Assembly::Truncate`] 200 as in CoreNet, whose filters are for sequences of one document
    /// each.
    pub min_characters: usize,
    /// Minimum number of tokens of a fragment, including BOS and EOS. Default 0, with
    /// [`Assembly::Truncate`] 256 as in CoreNet.
    pub min_tokens: usize,
    /// Assembly of fragments to sequences. Default [`Assembly::Pack`].
    pub assembly: Assembly,
    /// Number of files that are read in turns, one document from each. Default 1.
    pub readers: usize,
    /// Rank of this process, from 0: the sequence of every [`world`](Self::world) to return.
    /// Default 0.
    pub rank: usize,
    /// Number of ranks that share the corpus. Default 1.
    pub world: usize,
    /// Shuffle the files in the first epoch too. Default false, with [`Assembly::Truncate`] true as
    /// in CoreNet.
    pub shuffle_files: bool,
    /// Seed of the order of files. Default 0.
    pub seed: u64,
    /// Number of passes over the corpus; `None`, the default, is unlimited.
    pub epochs: Option<u64>,
    /// The treatment of files and rows that cannot be read. Default [`Corrupt::Stop`].
    pub on_corrupt: Corrupt,
}

/// Assembly of fragments to sequences of `L + 1` tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assembly {
    /// As in CoreNet: a sequence is the first `L + 1` tokens of a fragment. The rest is dropped,
    /// and missing tokens are padding without loss.
    Truncate,
    /// Fragments back to back. The rest of a fragment continues in the next sequence, which repeats
    /// one token, so that every token except the first of a fragment is a target exactly once. The
    /// default.
    #[default]
    Pack,
}

/// The treatment of files and rows that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Corrupt {
    /// The first one is an error (the default).
    #[default]
    Stop,
    /// Skipped and listed in the statistics: a single row, or the rest of an archive.
    Skip,
}

impl Default for CorpusOptions {
    fn default() -> Self {
        Self::new(Assembly::default())
    }
}

impl CorpusOptions {
    /// The defaults with `assembly`.
    pub fn new(assembly: Assembly) -> Self {
        let (min_characters, min_tokens) = match assembly {
            Assembly::Truncate => (200, 256),
            Assembly::Pack => (0, 0),
        };
        Self {
            files: Vec::new(),
            text_key: "text".to_owned(),
            sequence_length: 2048,
            words_per_fragment: 2048,
            min_characters,
            min_tokens,
            assembly,
            readers: 1,
            rank: 0,
            world: 1,
            shuffle_files: assembly == Assembly::Truncate,
            seed: 0,
            epochs: None,
            on_corrupt: Corrupt::default(),
        }
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (option, value) in [
            ("sequence_length", self.sequence_length),
            ("words_per_fragment", self.words_per_fragment),
            ("readers", self.readers),
            ("world", self.world),
        ] {
            if value == 0 {
                return Err(Error::at_least(option, 1, 0));
            }
        }
        for (option, value, most) in [
            ("sequence_length", self.sequence_length, 1 << 20),
            ("readers", self.readers, 1 << 14),
            ("world", self.world, 1 << 16),
        ] {
            if value > most {
                let problem = format!("expected at most {most}, found {value}");
                return Err(Error::option(option, problem));
            }
        }
        if self.rank >= self.world {
            let problem = format!("expected 0 to {}, found {}", self.world - 1, self.rank);
            return Err(Error::option("rank", problem));
        }
        if self.epochs == Some(0) {
            return Err(Error::at_least("epochs", 1, 0));
        }
        Ok(())
    }
}
