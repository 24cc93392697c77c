//! `openelm tokenizer train` from outside: what it writes, and what it refuses in one line.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{self, Command, Output},
};

use openelm_core::Tokenizer;

/// A folder that goes when its test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("openelm-tokenizer-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

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
fn it_writes_a_tokenizer_that_can_be_used() {
    let folder = Folder::new("use");
    let data = folder.0.join("a.txt");
    fs::write(
        &data,
        "An old wolf went into the woods. The wolf was old. ".repeat(9),
    )
    .unwrap();
    let output = folder.0.join("made/here");
    let told = train(&data, "300", &output);
    assert!(told.status.success(), "{told:?}");
    assert!(told.stdout.is_empty());
    let stderr = String::from_utf8(told.stderr).unwrap();
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
    // Again: the same bytes.
    let again = folder.0.join("again");
    assert!(train(&data, "300", &again).status.success());
    let bytes = |folder: &Path| fs::read(folder.join("tokenizer.json")).unwrap();
    assert!(bytes(&output) == bytes(&again));
}

#[test]
fn what_it_refuses_is_told_in_a_line() {
    let folder = Folder::new("refuse");
    let text = folder.0.join("a.txt");
    fs::write(&text, "some text").unwrap();
    let empty = folder.0.join("b.txt");
    fs::write(&empty, "").unwrap();
    let output = folder.0.join("made");
    for (data, size, code, expected) in [
        (&text, "100", 2, "vocab_size: expected 260"),
        (&text, "262", 2, "vocab_size: expected at least 266"),
        (&text, "9000", 2, "expected 9000; ask for fewer"),
        (&empty, "300", 1, "b.txt: there is no text"),
        (
            &folder.0.join("c.txt"),
            "300",
            1,
            "c.txt: no such file or folder",
        ),
        (
            &folder.0.join("*.gz"),
            "300",
            1,
            "*.gz: no file matches this pattern",
        ),
    ] {
        let told = train(data, size, &output);
        assert_eq!(told.status.code(), Some(code), "{told:?}");
        let stderr = String::from_utf8(told.stderr).unwrap();
        assert!(
            stderr.starts_with("openelm: ") && stderr.contains(expected),
            "{stderr}"
        );
        assert_eq!(stderr.lines().count(), 1);
    }
    assert!(!output.exists());
}
