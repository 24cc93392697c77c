//! Memory for a long text and a packed file. A single test, because the system counts the peak per
//! process.
#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    Tokenizer,
    dataset::{Dataset, DatasetOptions},
    memory::peak_resident_bytes,
    tokenizer::TokenizerTraining,
};
use openelm_testing::{TempDir, gzip, tales};

const MIB: u64 = 1 << 20;

#[test]
fn memory_is_bounded() {
    let tokenizer = Tokenizer::from_file(tales().join("tokenizer.json")).unwrap();
    let before = peak_resident_bytes().unwrap();
    let grown = || (peak_resident_bytes().unwrap() - before) / MIB;

    let text = "onceuponatime从前有".repeat(3 << 15);
    assert!(text.len() > 2 << 20);
    let ids = tokenizer.encode(&text).unwrap();
    // As a whole, the library needs over 300 MiB.
    assert!(grown() < 100, "{} MiB for a text", grown());

    let folder = TempDir::new();
    let path = folder.write("train.txt", &text);
    let dataset = Dataset::read(&path, &tokenizer, &DatasetOptions::default()).unwrap();
    let targets = dataset.counts().targets;
    assert!(targets >= ids.len(), "{targets}");
    assert!(grown() < 200, "{} MiB for a file", grown());

    let packed = folder.write("a.jsonl.gz", gzip(&[b' '; 1 << 20]).repeat(300));
    let training = TokenizerTraining::default();
    let problem = training.train(&[packed], &folder.join("out")).unwrap_err();
    assert!(
        problem.to_string().contains("line 1: expected at most"),
        "{problem}"
    );
    assert!(grown() < 250, "{} MiB for a packed file", grown());
}
