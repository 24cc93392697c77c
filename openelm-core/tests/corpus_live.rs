//! Compares the corpus reader with a short Python version on the same files. `parity/corpus.py`
//! writes its sequences and counts to the folder `OPENELM_CORPUS`; `make parity` runs everything.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::fs;
use std::path::{Path, PathBuf};

use openelm_core::Tokenizer;
use openelm_core::corpus::{Assembly, Corpus, CorpusGroup, CorpusOptions};
use serde::Deserialize;
use serde::de::DeserializeOwned;

#[derive(Deserialize)]
struct Case {
    tokenizer: String,
    assembly: Assembly,
    text_key: String,
    files: Vec<String>,
    sequence_length: usize,
    words_per_fragment: usize,
    min_characters: usize,
    min_tokens: usize,
    counts: Counts,
    sequences: String,
    /// Groups instead of files, of which the first sequences are compared.
    #[serde(default)]
    groups: Vec<Group>,
    #[serde(default = "one")]
    readers: usize,
    #[serde(default)]
    shard_files: bool,
}

#[derive(Deserialize)]
struct Group {
    files: Vec<String>,
    text_key: String,
    weight: f64,
}

fn one() -> usize {
    1
}

#[derive(Debug, Deserialize, PartialEq)]
struct Counts {
    documents: u64,
    fragments: u64,
    dropped_by_characters: u64,
    dropped_by_tokens: u64,
    tokens: u64,
    truncated_tokens: u64,
    pads: u64,
}

#[derive(Deserialize)]
struct Expected {
    tokens: Vec<u32>,
    starts: Vec<usize>,
}

#[test]
#[ignore = "needs files from Python: make parity"]
fn corpus_matches_python() {
    let folder = PathBuf::from(std::env::var_os("OPENELM_CORPUS").expect("set by parity/run.sh"));
    let cases: Vec<Case> = read(&folder.join("cases.json"));
    assert!(cases.len() >= 10, "only {} cases", cases.len());
    for case in cases {
        let name = format!(
            "{} {:?} {} of {} words",
            case.tokenizer, case.assembly, case.sequence_length, case.words_per_fragment
        );
        let paths = |files: &[String]| files.iter().map(|file| folder.join(file)).collect();
        let is_mixture = !case.groups.is_empty();
        let groups = case.groups.iter().map(|group| CorpusGroup {
            text_key: group.text_key.clone(),
            weight: Some(group.weight),
            ..CorpusGroup::new(paths(&group.files))
        });
        let options = CorpusOptions {
            groups: groups.collect(),
            files: if is_mixture {
                Vec::new()
            } else {
                paths(&case.files)
            },
            readers: case.readers,
            shard_files: case.shard_files,
            shuffle_files: false,
            text_key: case.text_key,
            sequence_length: case.sequence_length,
            words_per_fragment: case.words_per_fragment,
            min_characters: case.min_characters,
            min_tokens: case.min_tokens,
            assembly: case.assembly,
            epochs: (!is_mixture).then_some(1),
            ..CorpusOptions::default()
        };
        let tokenizer = Tokenizer::from_file(folder.join(&case.tokenizer)).unwrap();
        let mut corpus = Corpus::open(options, tokenizer).unwrap();
        let expected: Vec<Expected> = read(&folder.join(&case.sequences));
        for (index, expected) in expected.iter().enumerate() {
            let found = corpus
                .next()
                .unwrap_or_else(|| panic!("{name}: only {index} sequences"));
            let found = found.unwrap();
            assert_eq!(found.tokens, expected.tokens, "{name}: sequence {index}");
            assert_eq!(
                found.document_starts, expected.starts,
                "{name}: sequence {index}"
            );
        }
        if is_mixture {
            println!("{name:40} {:5} sequences of a mixture", expected.len());
            continue;
        }
        assert!(
            corpus.next().is_none(),
            "{name}: more than {} sequences",
            expected.len()
        );
        let statistics = corpus.statistics();
        let counts = Counts {
            documents: statistics.documents,
            fragments: statistics.fragments,
            dropped_by_characters: statistics.dropped_by_characters,
            dropped_by_tokens: statistics.dropped_by_tokens,
            tokens: statistics.tokens,
            truncated_tokens: statistics.truncated_tokens,
            pads: statistics.pads,
        };
        assert_eq!(counts, case.counts, "{name}");
        println!(
            "{name:40} {:5} sequences, {:6} tokens",
            expected.len(),
            counts.tokens
        );
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}
