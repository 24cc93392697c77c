//! Groups of files in the settings.

use std::fs;

use openelm_testing::{failure, success};

use crate::folder::{SETTINGS, Scratch, losses};

/// Writes `run.toml` with the tables of `data`.
fn write(scratch: &Scratch, data: &str) {
    let (options, model) = SETTINGS.split_once("[model]").unwrap();
    let options = options.replace("steps-per-eval = 8\n", "");
    let tokenizer = openelm_testing::tales();
    let text = format!("tokenizer = {tokenizer:?}\n{options}{data}\n[model]{model}");
    scratch.0.write("run.toml", text);
}

#[test]
fn a_mixture_is_trained_on_with_repaired_text() {
    let scratch = Scratch::new();
    let text = fs::read_to_string(scratch.path("train.jsonl")).unwrap();
    scratch.0.write(
        "odd",
        text.replace("\"text\"", "\"content\"")
            .replace("king", "ｋing’s"),
    );
    let data = format!(
        "clean-text = true\ncorenet-losses = true\n[[data]]\nfiles = [{:?}]\nweight = 1\n\
         [[data]]\nfiles = [{:?}]\ntext-key = \"content\"\nformat = \"jsonl\"\nweight = 2.5\n",
        scratch.path("train.jsonl"),
        scratch.path("odd"),
    );
    write(&scratch, &data);
    success(scratch.pretrain("out", &["--quiet"]));
    assert_eq!(losses(&scratch.path("out"), "train_loss").len(), 16);
    let message = failure(
        scratch.pretrain("out", &["--quiet", "--resume", "--clean-text=false"]),
        1,
    );
    assert!(
        message.contains("--clean-text: expected true, found false"),
        "{message}"
    );
}

#[test]
fn refuses_groups_by_line_and_key() {
    let scratch = Scratch::new();
    let good = format!("files = [{:?}]\n", scratch.path("train.jsonl"));
    let valid = format!("files = [{:?}]\n", scratch.path("valid.jsonl"));
    for (tables, code, expected) in [
        (
            format!("[[data]]\n{good}weight = 0\n"),
            2,
            "--data: group 1: weight: expected a number above 0, found 0",
        ),
        (
            format!("[[data]]\n{good}weight = -0.5\n"),
            2,
            "weight: expected a number above 0, found -0.5",
        ),
        (
            format!("[[data]]\n{good}weight = 1\n[[data]]\n{valid}"),
            2,
            "--data: group 2: weight: expected a number, as in",
        ),
        (
            format!("[[data]]\n{good}wheight = 1\n"),
            2,
            "unknown field `wheight`, expected one of `files`",
        ),
        (
            "[[data]]\nfiles = []\n".into(),
            2,
            "--data: group 1: files: expected at least one, found none",
        ),
        (
            "[[data]]\ntext-key = \"a\"\n".into(),
            2,
            "data: missing field `files`",
        ),
        (
            "[[data]]\nfiles = [\"\"]\n".into(),
            2,
            "data: files: the path is empty",
        ),
        (
            format!("[[data]]\n{good}text-key = \"a,b\"\n"),
            1,
            "train.jsonl:1: `a` or `b` is missing",
        ),
        (
            format!("[[data]]\n{good}[[data]]\n{good}"),
            1,
            "train.jsonl: the file is in two groups",
        ),
    ] {
        write(&scratch, &tables);
        let message = failure(scratch.pretrain("out", &["--quiet"]), code);
        assert!(message.contains(expected), "{message}: expected {expected}");
    }
}
