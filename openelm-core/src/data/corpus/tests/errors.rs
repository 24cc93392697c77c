//! Corrupt files, empty corpora and invalid options.

use std::fs;

use openelm_testing::{TempDir, gzip};
use serde_json::json;

use super::files::{open, options, rows, tokenizer};
use crate::{
    data::corpus::{Corpus, CorpusOptions, Corrupt, Sequence},
    documents::parquet::tests::write as write_parquet,
    error::{Error, Result},
};

#[test]
fn corrupt_files_fail_or_are_skipped() {
    let scratch = TempDir::new();
    let good = scratch.write("z.jsonl", rows(1, 25));
    let whole = Corpus::read_all(
        CorpusOptions {
            files: vec![good],
            ..options(&[])
        },
        tokenizer(),
    )
    .unwrap();
    let archive = |packed: Vec<u8>| packed[..packed.len() - 9].to_vec();
    let parquet = scratch.join("whole.parquet");
    write_parquet(
        &parquet,
        &[Some("a")],
        1,
        ::parquet::basic::Compression::SNAPPY,
    );
    let column = fs::read(&parquet).unwrap();
    fs::remove_file(parquet).unwrap();
    for (name, bytes, expected) in [
        (
            "a.json.gz",
            archive(gzip(b"{}")),
            "a.json.gz: the archive is cut off",
        ),
        (
            "a.jsonl.zst",
            vec![7; 99],
            "a.jsonl.zst: cannot be read further",
        ),
        (
            "a.parquet",
            archive(column),
            "a.parquet: not a valid parquet file",
        ),
        (
            "a.jsonl",
            b"{\"text\": 3}\n{\"txt\": \"\"}\n".to_vec(),
            "a.jsonl:1: `text`: expected",
        ),
        ("a.txt", vec![0xFF; 30], "a.txt: not UTF-8 text"),
    ] {
        let bad = scratch.write(name, bytes);
        let folder = [scratch.to_path_buf()];
        let mut corpus = open(&options(&folder));
        let error = corpus.next().unwrap().unwrap_err().to_string();
        assert!(error.contains(expected), "{error}: expected {expected}");
        assert!(corpus.next().is_none());

        let skip = CorpusOptions {
            on_corrupt: Corrupt::Skip,
            epochs: Some(2),
            ..options(&folder)
        };
        let mut corpus = open(&skip);
        let found: Vec<Sequence> = corpus.by_ref().map(Result::unwrap).collect();
        assert_eq!(found, [whole.clone(), whole.clone()].concat());
        let statistics = corpus.statistics();
        assert_eq!(statistics.corrupt.len(), 1);
        assert_eq!(statistics.corrupt[0].path, bad.display().to_string());
        assert!(statistics.corrupt[0].problem.contains(expected));
        let count = if name == "a.jsonl" { 4 } else { 2 };
        assert_eq!(statistics.corrupt[0].count, count, "{name}");
        fs::remove_file(bad).unwrap();
    }
}

#[test]
fn returns_sequences_before_a_corrupt_row() {
    let scratch = TempDir::new();
    let file = scratch.write("a.jsonl", format!("{}oops\n", rows(1, 20)));
    let found: Vec<_> = open(&options(&[file])).collect();
    assert!(found.len() > 10);
    let (last, good) = found.split_last().unwrap();
    assert!(good.iter().all(Result::is_ok));
    let error = last.as_ref().unwrap_err().to_string();
    assert!(error.contains("a.jsonl:21: malformed JSON"), "{error}");
}

#[test]
fn empty_corpus_reports_the_cause() {
    let scratch = TempDir::new();
    let texts = ["too short", "the the the the the the the the the"];
    let rows: String = texts
        .iter()
        .map(|text| format!("{}\n", json!({"text": text})))
        .collect();
    let file = scratch.write("a.jsonl", rows);
    for epochs in [None, Some(1)] {
        let mut corpus = open(&CorpusOptions {
            epochs,
            ..options(std::slice::from_ref(&file))
        });
        let error = corpus.next().unwrap().unwrap_err().to_string();
        let expected = "no document is left of 1 files: 2 documents gave 2 fragments, of which 1 have \
                        fewer than 30 characters and 1 fewer than 12 tokens";
        assert!(error.contains(expected), "{error}");
    }
    let empty = scratch.write("b.jsonl", "\n");
    let error = open(&options(&[empty])).next().unwrap().unwrap_err();
    assert!(
        error.to_string().contains("0 documents gave 0 fragments"),
        "{error}"
    );
}

#[test]
fn rejects_options_out_of_range() {
    for (name, edit) in [
        (
            "sequence_length",
            (|o| o.sequence_length = 0) as fn(&mut CorpusOptions),
        ),
        ("words_per_fragment", |o| o.words_per_fragment = 0),
        ("readers", |o| o.readers = 0),
        ("world", |o| o.world = 0),
        ("rank", |o| o.rank = 1),
        ("epochs", |o| o.epochs = Some(0)),
        ("files", |_| ()),
    ] {
        let mut options = options(&[]);
        edit(&mut options);
        let error = Corpus::open(options, tokenizer()).err().unwrap();
        assert!(
            matches!(error, Error::Option { option, .. } if option == name),
            "{error}"
        );
    }
}
