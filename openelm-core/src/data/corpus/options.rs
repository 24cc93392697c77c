//! Options of a corpus.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::group::{self, CorpusGroup};
use crate::error::{Error, Result};

/// Options of a corpus: files, filters and assembly of sequences.
#[derive(Clone, Debug, PartialEq)]
pub struct CorpusOptions {
    /// Files, folders (with subfolders) and patterns such as `shards/*.parquet`. The extension
    /// determines the format: rows of JSON (`.jsonl`) or one document (`.txt`), both also as `.gz`
    /// and `.zst`, or `.parquet`; `.json.gz`, `.json.zst` and any other `.zst` have rows of JSON.
    pub files: Vec<PathBuf>,
    /// Key of the text in a row of JSON, or name of the parquet column. Of several, separated by
    /// commas, the first one that the row or file has counts: `content,text` for a mixture with
    /// RefinedWeb. Default `text`.
    pub text_key: String,
    /// The groups of a mixture, instead of [`files`](Self::files) and
    /// [`text_key`](Self::text_key). Default none.
    pub groups: Vec<CorpusGroup>,
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
    /// Repair the text as `ftfy.fix_text` does, as CoreNet: mojibake, HTML entities, curly quotes,
    /// ligatures of Latin letters, widths, line breaks, control characters. Default false: the text
    /// is normalized to NFC alone.
    pub clean_text: bool,
    /// Assembly of fragments to sequences. Default [`Assembly::Pack`].
    pub assembly: Assembly,
    /// Number of files that are read in turns, one document from each; of each group with a weight
    /// as many. Default 1.
    pub readers: usize,
    /// Give each rank files of its own, so that no rank reads and tokenises another one's: each
    /// reader has every so-many-th file, gives one sequence in turn, and begins again independently
    /// of the others, as in CoreNet. The number of readers is a multiple of the number of ranks,
    /// and at least so many files are needed, of each group with a weight. Default false.
    pub shard_files: bool,
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
    pub(crate) const TEXT_KEY: &str = "text";

    /// The defaults with `assembly`.
    pub fn new(assembly: Assembly) -> Self {
        let (min_characters, min_tokens) = match assembly {
            Assembly::Truncate => (200, 256),
            Assembly::Pack => (0, 0),
        };
        Self {
            files: Vec::new(),
            text_key: Self::TEXT_KEY.to_owned(),
            groups: Vec::new(),
            sequence_length: 2048,
            words_per_fragment: 2048,
            min_characters,
            min_tokens,
            clean_text: false,
            assembly,
            readers: 1,
            shard_files: false,
            rank: 0,
            world: 1,
            shuffle_files: assembly == Assembly::Truncate,
            seed: 0,
            epochs: None,
            on_corrupt: Corrupt::default(),
        }
    }

    /// The weights of the groups; `None` if the files are one list.
    pub(crate) fn weights(&self) -> Option<Vec<f64>> {
        let weights: Option<Vec<f64>> = self.groups.iter().map(|group| group.weight).collect();
        weights.filter(|weights| !weights.is_empty())
    }

    pub(crate) fn check(&self) -> Result<()> {
        if !self.groups.is_empty() && !self.files.is_empty() {
            let problem = "expected none beside groups of files";
            return Err(Error::option("files", problem));
        }
        group::check(&self.groups)?;
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
