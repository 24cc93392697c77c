//! The position in a corpus, for resume.

use std::{fs, path::Path};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{
    group::{Files, FixedGroup},
    options::{Assembly, CorpusOptions, Corrupt},
    sample,
    statistics::{CorpusStatistics, CorruptFile},
    streams::{Stream, Streams},
};
use crate::{
    data::Fingerprint,
    error::{Error, Result, RunDifference},
};

/// The position in a corpus after a sequence, and the options of the corpus. It is the same on all
/// ranks, except with [`shard_files`](CorpusOptions::shard_files), where each rank moves its own
/// files' positions. Serialized with serde.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "Saved")]
pub struct CorpusState {
    options: Fixed,
    /// Sequences of all ranks before the position.
    pub(crate) given: u64,
    pub(crate) streams: Vec<StreamState>,
}

/// The saved form, or that of a version with one stream.
#[derive(Deserialize)]
#[serde(untagged)]
enum Saved {
    Streams {
        options: Fixed,
        given: u64,
        streams: Vec<StreamState>,
    },
    One {
        options: Fixed,
        #[serde(flatten)]
        stream: StreamState,
    },
}

impl From<Saved> for CorpusState {
    fn from(saved: Saved) -> Self {
        match saved {
            Saved::Streams {
                options,
                given,
                streams,
            } => Self {
                options,
                given,
                streams,
            },
            Saved::One { options, stream } => Self {
                options,
                given: stream.made.sequences,
                streams: vec![stream],
            },
        }
    }
}

/// The position in a stream.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct StreamState {
    /// Position before the next fragment.
    pub(crate) mark: Mark,
    /// Number of the fragment's tokens that are already in sequences.
    pub(crate) offset: usize,
    /// Counts of the input, including this fragment if it was started.
    pub(crate) read: Read,
    pub(crate) made: Made,
}

/// A position between two fragments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mark {
    pub(crate) position: Position,
    pub(crate) read: Read,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Position {
    /// Epoch, from 0.
    pub(crate) epoch: u64,
    /// Index of the reader of the next document.
    pub(crate) turn: usize,
    pub(crate) readers: Vec<Place>,
}

/// The position of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Place {
    /// Index among the reader's files of this epoch.
    pub(crate) file: usize,
    pub(crate) row: u64,
    #[serde(alias = "piece")]
    pub(crate) fragment: u64,
}

/// Counts of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Read {
    pub(crate) epochs: u64,
    pub(crate) documents: u64,
    #[serde(alias = "pieces")]
    pub(crate) fragments: u64,
    pub(crate) dropped_by_characters: u64,
    pub(crate) corrupt: Vec<CorruptFile>,
}

/// Counts of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Made {
    pub(crate) dropped_by_tokens: u64,
    pub(crate) kept: u64,
    pub(crate) tokens: u64,
    pub(crate) sequences: u64,
    pub(crate) targets: u64,
    pub(crate) truncated_tokens: u64,
    pub(crate) pads: u64,
    pub(crate) left_over: u64,
}

/// The options that determine the order, and `on_corrupt`, which may change on resume.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Fixed {
    /// Number of files, and a hash of their names and sizes in order.
    files: usize,
    names: u64,
    /// A hash of parts of the contents; `None` in the state of an older version.
    #[serde(default)]
    contents: Option<u64>,
    text_key: String,
    /// Empty in the state of an older version.
    #[serde(default)]
    groups: Vec<FixedGroup>,
    sequence_length: usize,
    #[serde(alias = "words_per_piece")]
    words_per_fragment: usize,
    min_characters: usize,
    min_tokens: usize,
    /// False in the state of an older version.
    #[serde(default)]
    clean_text: bool,
    assembly: Assembly,
    readers: usize,
    /// False in the state of an older version.
    #[serde(default)]
    shard_files: bool,
    /// False in the state of an older version.
    #[serde(default)]
    shuffle_files: bool,
    seed: u64,
    on_corrupt: Corrupt,
}

impl CorpusState {
    /// The start of a corpus.
    pub(crate) fn new(options: &CorpusOptions, files: &Files, streams: &Streams) -> Result<Self> {
        let paths: Vec<&Path> = files.paths().collect();
        Ok(Self {
            options: Fixed {
                files: paths.len(),
                names: hash(&paths)?,
                contents: Some(sample::hash(&paths)?),
                text_key: options.text_key.clone(),
                groups: files.groups.clone(),
                sequence_length: options.sequence_length,
                words_per_fragment: options.words_per_fragment,
                min_characters: options.min_characters,
                min_tokens: options.min_tokens,
                clean_text: options.clean_text,
                assembly: options.assembly,
                readers: options.readers,
                shard_files: options.shard_files,
                shuffle_files: options.shuffle_files,
                seed: options.seed,
                on_corrupt: options.on_corrupt,
            },
            given: 0,
            streams: streams.all().iter().map(StreamState::new).collect(),
        })
    }

    /// Refuses `self`, a saved state, unless it was made with the options and files of `new`.
    pub(crate) fn check(&self, new: &Self) -> Result<()> {
        let new_streams = &new.streams;
        let (saved, new) = (&self.options, &new.options);
        let mut differences = Vec::new();
        macro_rules! same {
            ($($option:ident),*) => {$(
                if saved.$option != new.$option {
                    differences.push(RunDifference {
                        option: stringify!($option).to_owned(),
                        expected: json!(saved.$option).to_string(),
                        found: json!(new.$option).to_string(),
                    });
                }
            )*};
        }
        same!(
            text_key,
            sequence_length,
            words_per_fragment,
            min_characters,
            min_tokens,
            clean_text,
            assembly,
            readers,
            shard_files,
            shuffle_files,
            seed,
            files,
            groups
        );
        if saved.files == new.files && saved.names != new.names {
            differences.push(RunDifference {
                option: "files".to_owned(),
                expected: format!("names and sizes of hash {:016x}", saved.names),
                found: format!("{:016x}", new.names),
            });
        } else if let (Some(expected), Some(found)) = (saved.contents, new.contents)
            && saved.files == new.files
            && expected != found
        {
            differences.push(RunDifference {
                option: "files".to_owned(),
                expected: format!("contents of hash {expected:016x}"),
                found: format!("{found:016x}"),
            });
        }
        if !differences.is_empty() {
            return Err(Error::OtherRun {
                path: "corpus".into(),
                differences,
            });
        }
        let consistent = |(saved, new): (&StreamState, &StreamState)| {
            let (saved, new) = (&saved.mark.position, &new.mark.position);
            saved.readers.len() == new.readers.len() && saved.turn < new.readers.len()
        };
        let mut pairs = self.streams.iter().zip(new_streams);
        if self.streams.len() != new_streams.len() || !pairs.all(consistent) {
            return Err(Error::option("readers", "the state is inconsistent"));
        }
        Ok(())
    }

    pub(crate) fn statistics(&self) -> CorpusStatistics {
        let mut sum = CorpusStatistics::default();
        let epochs = self.streams.iter().map(|stream| stream.read.epochs);
        sum.epochs = epochs.min().unwrap_or_default();
        for StreamState { read, made, .. } in &self.streams {
            sum.documents += read.documents;
            sum.fragments += read.fragments;
            sum.dropped_by_characters += read.dropped_by_characters;
            sum.dropped_by_tokens += made.dropped_by_tokens;
            sum.tokens += made.tokens;
            sum.sequences += made.sequences;
            sum.targets += made.targets;
            sum.truncated_tokens += made.truncated_tokens;
            sum.pads += made.pads;
            sum.left_over += made.left_over;
            sum.corrupt.extend(read.corrupt.iter().cloned());
        }
        sum
    }
}

impl StreamState {
    /// The start of a stream.
    fn new(stream: &Stream) -> Self {
        Self {
            mark: Mark {
                position: Position {
                    epoch: 0,
                    turn: 0,
                    readers: vec![Place::default(); stream.readers],
                },
                read: Read::default(),
            },
            offset: 0,
            read: Read::default(),
            made: Made::default(),
        }
    }
}

/// A hash of names and sizes, which do not change when the folder is moved.
fn hash(files: &[&Path]) -> Result<u64> {
    let mut hash = Fingerprint::new();
    for file in files {
        let size = fs::metadata(file).map_err(Error::io(file))?.len();
        hash.bytes(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.bytes(&[0]);
        hash.number(size);
    }
    Ok(hash.value())
}
