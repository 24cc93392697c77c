//! Test files of rows, and a corpus of them.

use std::path::PathBuf;

use openelm_testing::{TempDir, gzip, tales};
use serde_json::json;

use crate::{
    data::corpus::{Assembly, Corpus, CorpusOptions, Sequence},
    documents::parquet::tests::write as write_parquet,
    error::Result,
    tokenizer::Tokenizer,
};

pub(crate) fn tokenizer() -> Tokenizer {
    Tokenizer::from_file(tales().join("tokenizer.json")).unwrap()
}

/// Small sizes, so that every filter applies.
pub(crate) fn options(files: &[PathBuf]) -> CorpusOptions {
    CorpusOptions {
        files: files.to_vec(),
        sequence_length: 24,
        words_per_fragment: 20,
        min_characters: 30,
        min_tokens: 12,
        shuffle_files: false,
        ..CorpusOptions::new(Assembly::Truncate)
    }
}

/// Document `n` of a file, with its own length and words.
pub(crate) fn document(file: u64, n: u64) -> String {
    let words = (file * 31 + n * 17) % 67;
    let words = (0..words).map(|word| {
        let pick = (file * 7_919 + n * 104_729 + word * 1_299_709) % 9;
        [
            "the", "old", "king", "went", "tö", "42", "woods,", "and", "\"why?\"",
        ][pick as usize]
    });
    words.collect::<Vec<_>>().join(" ")
}

pub(crate) fn rows(file: u64, count: u64) -> String {
    (0..count)
        .map(|n| format!("{}\n", json!({"text": document(file, n)})))
        .collect()
}

/// Five files of four kinds.
pub(crate) fn files(scratch: &TempDir) -> Vec<PathBuf> {
    let parquet = scratch.join("d.parquet");
    let texts: Vec<String> = (0..30).map(|n| document(4, n)).collect();
    let texts: Vec<_> = texts.iter().map(|text| Some(text.as_str())).collect();
    write_parquet(&parquet, &texts, 7, ::parquet::basic::Compression::SNAPPY);
    let book: Vec<String> = (0..9).map(|n| document(5, n)).collect();
    vec![
        scratch.write("a.jsonl", rows(1, 25)),
        scratch.write(
            "b.jsonl.zst",
            zstd::encode_all(rows(2, 25).as_bytes(), 3).unwrap(),
        ),
        scratch.write("c.json.gz", gzip(rows(3, 15).as_bytes())),
        parquet,
        scratch.write("e.txt", book.join(" ")),
    ]
}

pub(crate) fn take(corpus: &mut Corpus, count: usize) -> Vec<Sequence> {
    corpus.by_ref().take(count).map(Result::unwrap).collect()
}

pub(crate) fn open(options: &CorpusOptions) -> Corpus {
    Corpus::open(options.clone(), tokenizer()).unwrap()
}
