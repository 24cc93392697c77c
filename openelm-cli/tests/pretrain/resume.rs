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

    // A file of CoreNet has neither architecture nor tokenizer.
    let file = scratch.path("tales.pt");
    let mut convert = Command::new(env!("CARGO_BIN_EXE_openelm"));
    convert.args(["convert", "--quiet"]).arg(tales()).arg(&file);
    success(convert);
    let file = file.to_str().unwrap();
    let tokenizer = tales();
    let corenet = |output: &str, more: &[&str]| {
        let mut command = from(output, file, more);
        command.arg("--tokenizer").arg(&tokenizer);
        command.args(["--preset", "270M", "--num-transformer-layers", "6"]);
        command.args([
            "--model-dim",
            "192",
            "--head-dim",
            "32",
            "--num-gqa-groups",
            "2",
        ]);
        command.args(["--ffn-dim-divisor", "64", "--max-context-length", "512"]);
        command
    };
    let message = failure(corenet("third", &[]), 2);
    assert!(message.contains("--learning-rate: expected"), "{message}");
    success(corenet("third", &["--learning-rate", "0"]));
    assert_eq!(losses(&scratch.path("third"), "val_loss")[0], untrained[0]);

    let message = failure(
        from("none", tales().to_str().unwrap(), &["--head-dim", "32"]),
        2,
    );
    assert!(message.contains("leave out [model]"), "{message}");
    let message = failure(from("none", "nowhere", &[]), 1);
    assert!(message.contains("nowhere"), "{message}");
    assert!(!scratch.path("none").exists(), "no run was started");
}
