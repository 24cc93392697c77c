//! Invalid options and data.

use std::fs;

use openelm_testing::{encodings, failure, success, tales};

use crate::folder::{Scratch, openelm};

#[test]
fn rejects_invalid_options_and_data() {
    let scratch = Scratch::new();
    let bad = scratch.path("bad.jsonl");
    let one = |rows: &str, more: &[&str]| {
        fs::write(&bad, rows).unwrap();
        let mut command = openelm(&["finetune", "--model", tales().to_str().unwrap(), "--data"]);
        command
            .arg(&bad)
            .arg("--adapter-path")
            .arg(scratch.path("none"))
            .args(more);
        failure(command, 1)
    };
    assert!(one("{\"text\": \"a\"}\n{\"text\": 3}\n", &[]).contains("bad.jsonl:2"));
    assert!(one("{\"text\": \"a\"\n", &[]).contains("bad.jsonl:1"));
    assert!(one("", &[]).contains("bad.jsonl"));
    assert!(one("{\"prompt\": \"a\", \"completion\": \"\"}\n", &[]).contains("bad.jsonl:1"));
    assert!(!scratch.path("none").exists(), "no run was started");

    let message = failure(scratch.finetune("none", &["--keys", "qkv"]), 2);
    assert!(
        message.contains("`qkv`") && message.contains("qkv_proj"),
        "{message}"
    );
    let message = failure(scratch.finetune("none", &["--num-layers", "0"]), 2);
    assert!(
        message.contains("--num-layers: expected at least 1, found 0"),
        "{message}"
    );
    let message = failure(scratch.finetune("none", &["--optimizer", "adamm"]), 2);
    assert!(message.contains("adafactor"), "{message}");
    fs::write(scratch.path("run.toml"), "iters = 3\nbatchsize = 2\n").unwrap();
    let file = scratch.path("run.toml");
    let message = failure(
        scratch.finetune("none", &["--config", file.to_str().unwrap()]),
        1,
    );
    assert!(
        message.contains("line 2") && message.contains("`batchsize`"),
        "{message}"
    );
    for (name, bytes) in encodings("iters = 3\r\nbatchsize = 2\r\n") {
        fs::write(&file, bytes).unwrap();
        let config = ["--config", file.to_str().unwrap()];
        let message = failure(scratch.finetune("none", &config), 1);
        assert!(message.contains("line 2"), "{name}: {message}");
    }
    #[cfg(target_os = "linux")]
    {
        let message = failure(scratch.finetune("none", &["--config", "/dev/zero"]), 1);
        assert!(
            message.contains("/dev/zero: expected at most 16777216 bytes, found more"),
            "{message}"
        );
    }

    success(scratch.finetune(
        "run",
        &["--iters", "2", "--quiet", "--learning-rate", "1e-4"],
    ));
    let message = failure(scratch.finetune("run", &["--iters", "3"]), 1);
    assert!(message.contains("resume"), "{message}");
    let other = [
        "--iters",
        "3",
        "--resume",
        "--learning-rate",
        "2e-4",
        "--quiet",
    ];
    let message = failure(scratch.finetune("run", &other), 1);
    assert!(
        message.contains("--learning-rate: expected 0.0001, found 0.0002"),
        "{message}"
    );

    // A run that diverges stops with a message and keeps its last checkpoint.
    let before = success(scratch.finetune(
        "wild",
        &[
            "--iters",
            "3",
            "--save-every",
            "1",
            "--json",
            "--optimizer",
            "sgd",
            "--learning-rate",
            "1e-3",
        ],
    ));
    assert!(!before.stdout.is_empty());
    let wild = [
        "--iters",
        "9",
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e30",
    ];
    let message = failure(scratch.finetune("wilder", &wild), 1);
    assert!(message.contains("lower learning rate"), "{message}");
}
