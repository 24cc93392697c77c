//! Runs that continue from a model.

use std::{
    fs,
    process::{Command, Stdio},
};

use openelm_testing::{failure, success, tales};

use crate::folder::{Scratch, losses};

#[test]
fn continues_from_existing_model() {
    let scratch = Scratch::new();
    let from = |output: &str, model: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
        command
            .args([
                "pretrain",
                "--iters",
                "2",
                "--steps-per-eval",
                "1",
                "--quiet",
            ])
            .args(["--batch-size", "4", "--max-seq-length", "32", "--data"])
            .arg(scratch.path("train.jsonl"))
            .arg("--valid")
            .arg(scratch.path("valid.jsonl"))
            .arg("--start-from")
            .arg(model)
            .arg("--output")
            .arg(scratch.path(output))
            .args(more)
            .stdin(Stdio::null());
        command
    };
    // From trained weights, twice.
    success(from(
        "first",
        tales().to_str().unwrap(),
        &["--learning-rate", "0"],
    ));
    let untrained = losses(&scratch.path("first"), "val_loss");
    assert!(untrained[0] < 6.0, "{untrained:?}");
    assert_eq!(
        untrained[0], untrained[1],
        "a learning rate of 0 leaves the weights unchanged"
    );
    let config = fs::read_to_string(scratch.path("first/model/config.json")).unwrap();
    assert!(config.contains("\"float32\""), "{config}");
    let model = scratch.path("first/model");
    let model = model.to_str().unwrap();
    success(from(
        "second",
        model,
        &["--learning-rate", "1e-3", "--warmup", "0"],
    ));
    let trained = losses(&scratch.path("second"), "val_loss");
    assert!(trained[1] < untrained[0], "{trained:?} after {untrained:?}");

    // A resumed run does not need the initial model.
    fs::remove_file(scratch.path("first/model/model.safetensors")).unwrap();
    let again = ["--learning-rate", "1e-3", "--warmup", "0", "--resume"];
    success(from("second", model, &again));

    let message = failure(
        from("none", tales().to_str().unwrap(), &["--head-dim", "32"]),
        2,
    );
    assert!(message.contains("leave out [model]"), "{message}");
    let message = failure(from("none", "nowhere", &[]), 1);
    assert!(message.contains("nowhere"), "{message}");
    assert!(!scratch.path("none").exists(), "no run was started");
}
