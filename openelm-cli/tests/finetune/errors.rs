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
        2,
    );
    assert!(
        message.contains("line 2") && message.contains("`batchsize`"),
        "{message}"
    );
    let found = scratch.path("found.toml");
    for (text, problem) in [
        ("iters = 3\nrank = \"four\"\n", "line 2: rank: invalid type"),
        ("rank = -4\n", "line 1: rank: invalid value"),
        (
            "keys = [\n \"proj_1\",\n 2,\n]\n",
            "line 3: keys: invalid type",
        ),
        ("rank = 4\nrank = 8\n", "line 2: rank: duplicate key"),
        (
            "alpha = 4\nscale = 8\n",
            "found.toml: scale: no effect with --alpha",
        ),
        ("alpha = nan\n", "--alpha: expected a number, found NaN"),
        ("data = \"\"\n", "found.toml: data: the path is empty"),
        (
            "adapter-path = \"\"\n",
            "found.toml: adapter-path: the path is empty",
        ),
        (
            "rslora = true\n",
            "found.toml: rslora: no effect without --alpha",
        ),
        (
            "patience = 3\nbeta = 0.5\n",
            "found.toml: beta: no effect without --dpo",
        ),
    ] {
        fs::write(&found, text).unwrap();
        let mut command = openelm(&["finetune", "--model", "nowhere", "--config"]);
        command.arg(&found);
        let message = failure(command, 2);
        assert!(message.contains(problem), "{text}: {message}");
    }
    for (more, problem) in [
        (&["--rank", "5000000000"][..], "--rank: expected at most"),
        (
            &["--batch-size", "2147483648"],
            "--batch-size: expected at most 2147483647",
        ),
        (
            &["--weight-decay", "0.1"],
            "--weight-decay: Adam has no weight decay",
        ),
        (
            &["--optimizer", "sgd", "--bias-correction"],
            "--bias-correction: only Adam",
        ),
        (
            &["--lr-end", "nan", "--lr-schedule", "linear"],
            "--lr-end: expected a number from 0",
        ),
        (&["--keys-regex", "("], "--keys-regex: "),
        (&["--keys-regex", "nothing"], "--keys-regex: "),
        (&["--tied-head"], "--tied-head: no effect without"),
        (&["--test"], "--test: no test data"),
        (&["--keep-quantized"], "--keep-quantized: no effect"),
        (
            &["--max-seq-length", "514"],
            "--max-seq-length: expected at most 513",
        ),
        (
            &["--beta", "nan", "--dpo", "hinge"],
            "--beta: expected a number above 0",
        ),
        (
            &["--mask-prompt", "--dpo", "hinge"],
            "--mask-prompt: has no effect",
        ),
    ] {
        let message = failure(scratch.finetune("none", more), 2);
        assert!(message.contains(problem), "{more:?}: {message}");
    }
    // Without validation data.
    let train = scratch.path("train.jsonl");
    for option in ["--steps-per-eval", "--val-batches", "--patience"] {
        let mut command = openelm(&["finetune", option, "3", "--model"]);
        command.arg(tales());
        command
            .arg("--data")
            .arg(&train)
            .arg("--adapter-path")
            .arg(scratch.path("none"));
        let message = failure(command, 2);
        assert!(
            message.contains(&format!("{option}: no effect without validation")),
            "{message}"
        );
    }
    for (name, bytes) in encodings("iters = 3\r\nbatchsize = 2\r\n") {
        fs::write(&file, bytes).unwrap();
        let config = ["--config", file.to_str().unwrap()];
        let message = failure(scratch.finetune("none", &config), 2);
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
