//! `openelm tokenizer train` as a process: its files and its errors.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use openelm_core::Tokenizer;
use openelm_testing::TempDir;

fn train(data: &Path, size: &str, output: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_openelm"))
        .args(["tokenizer", "train", "--vocab-size", size, "--data"])
        .arg(data)
        .arg("--output")
        .arg(output)
        .output()
        .unwrap()
}

#[test]
fn writes_usable_tokenizer() {
    let folder = TempDir::new();
    let data = folder.join("a.txt");
    fs::write(
        &data,
        "An old wolf went into the woods. The wolf was old. ".repeat(9),
    )
    .unwrap();
    let output = folder.join("made/here");
    let outcome = train(&data, "300", &output);
    assert!(outcome.status.success(), "{outcome:?}");
    assert!(outcome.stdout.is_empty());
    let stderr = String::from_utf8(outcome.stderr).unwrap();
    assert!(
        stderr.contains("300 pieces (16 characters) from 1 documents"),
        "{stderr}"
    );
    let tokenizer = Tokenizer::from_file(output.join("tokenizer.json")).unwrap();
    let text = "The  wolf\nand 2 🦊";
    let ids = tokenizer.encode_prompt(text).unwrap();
    assert_eq!(ids[0], 1);
    assert!(tokenizer.piece_id("▁wolf").is_some());
    assert_eq!(tokenizer.decode(&ids).unwrap(), text);
    assert!(output.join("tokenizer_config.json").is_file());
    // A second run writes the same bytes.
    let again = folder.join("again");
    assert!(train(&data, "300", &again).status.success());
    let bytes = |folder: &Path| fs::read(folder.join("tokenizer.json")).unwrap();
    assert!(bytes(&output) == bytes(&again));
    // A third one needs --force.
    let refused = train(&data, "290", &again);
    assert_eq!(refused.status.code(), Some(1));
    let stderr = String::from_utf8(refused.stderr).unwrap();
    assert!(stderr.contains("tokenizer.json: exists"), "{stderr}");
    assert!(stderr.contains("--force replaces it"), "{stderr}");
    assert!(bytes(&output) == bytes(&again));
}

#[test]
fn rejects_invalid_data_and_sizes() {
    let folder = TempDir::new();
    let text = folder.join("a.txt");
    fs::write(&text, "some text").unwrap();
    let empty = folder.join("b.txt");
    fs::write(&empty, "").unwrap();
    let output = folder.join("made");
    for (data, size, code, expected) in [
        (&text, "100", 2, "--vocab-size: expected 260"),
        (&text, "262", 2, "--vocab-size: expected at least 266"),
        (&text, "9000", 2, "expected 9000; use a smaller"),
        (&empty, "300", 1, "b.txt: there is no text"),
        (
            &folder.join("c.txt"),
            "300",
            1,
            "c.txt: no such file or folder",
        ),
        (
            &folder.join("*.gz"),
            "300",
            1,
            "*.gz: no file matches this pattern",
        ),
    ] {
        let outcome = train(data, size, &output);
        assert_eq!(outcome.status.code(), Some(code), "{outcome:?}");
        let stderr = String::from_utf8(outcome.stderr).unwrap();
        assert!(
            stderr.starts_with("openelm: ") && stderr.contains(expected),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1);
    }
    assert!(!output.exists());
}
