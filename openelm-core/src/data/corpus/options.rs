//! The options of a corpus.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The options of a corpus: the way from documents to sequences.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorpusOptions {
    /// Files, folders (with their subfolders) and patterns such as `shards/*.parquet`. What a
    /// file holds is told by the ending of its name: rows of JSON (`.jsonl`) or a document
    /// (`.txt`), both also as `.gz` and `.zst`, or `.parquet`; `.json.gz`, `.json.zst` and any
    /// other `.zst` have rows of JSON.
    pub files: Vec<PathBuf>,
    /// Key of the text in a row of JSON, or its column in a parquet file. Default `text`;
    /// RefinedWeb's is `content`.
    pub text_key: String,
    /// Tokens that the model reads at once, `L`. Default 2048.
    pub sequence_length: usize,
    /// Words of a fragment; a document is split at single spaces. Default 2048.
    pub words_per_fragment: usize,
    /// Fewest characters of a fragment, as SlimPajama counts them. Default 0, with
    /// [`Assembly::Truncate`] 200 as in CoreNet: its filters are for sequences that hold one
    /// document.
    pub min_characters: usize,
    /// Fewest tokens of a fragment, BOS and EOS among them. Default 0, with
    /// [`Assembly::Truncate`] 256 as in CoreNet.
    pub min_tokens: usize,
    /// How fragments become sequences. Default [`Assembly::Pack`].
    pub assembly: Assembly,
    /// Files that are read in turns, a document of each. Default 1.
    pub readers: usize,
    /// The sequence of every [`world`](Self::world) to hand out, from 0. Default 0.
    pub rank: usize,
    /// Number of ranks that share the corpus. Default 1.
    pub world: usize,
    /// Of the order of files from the second epoch on. Default 0.
    pub seed: u64,
    /// The number of passes over the corpus; `None`, the default, for no end.
    pub epochs: Option<u64>,
    /// The treatment of files and rows that cannot be read. Default [`Corrupt::Stop`].
    pub on_corrupt: Corrupt,
}

/// The way from fragments to sequences of `L + 1` tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Assembly {
    /// As CoreNet: a sequence is the first `L + 1` tokens of a fragment. The rest is thrown away,
    /// and what is missing is padding without loss.
    Truncate,
    /// Fragments back to back. What does not fit goes on in the next sequence, which repeats one
    /// token so that every token but the first of a fragment is learnt exactly once. The default.
    #[default]
    Pack,
}

/// The treatment of files and rows that cannot be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Corrupt {
    /// The first one is an error. The default.
    #[default]
    Stop,
    /// They are left out, and named in the statistics: a row alone, or of an archive the rest.
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
            ("readers", self.readers, 1 << 10),
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
