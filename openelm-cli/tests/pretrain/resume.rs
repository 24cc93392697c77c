//! Killed, interrupted and resumed runs.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use openelm_testing::{failure, success, tales};

use crate::folder::{Scratch, assert_same, losses};

#[test]
fn killed_and_resumed_run_gives_identical_files() {
    let scratch = Scratch::new();
    success(scratch.pretrain("undisturbed", &["--quiet"]));
    let (expected, killed) = (scratch.path("undisturbed"), scratch.path("killed"));
    let attempt = || {
        let resume = killed.join("training_state.safetensors").is_file();
        let resume: &[&str] = if resume { &["--resume"] } else { &[] };
        scratch.pretrain("killed", &[&["--quiet"], resume].concat())
    };
    // Kill times between loading and the last step; a checkpoint follows every step.
    let (mut state, mut kills) = (98_765_u64, 0);
    while kills < 20 {
        let mut child = attempt().stderr(Stdio::null()).spawn().unwrap();
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(100 + (state >> 33) % 900));
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            None => kills += 1,
            // The run ended before the kill: repeat it.
            Some(code) => {
                assert_eq!(code, 0);
                assert_same(&expected, &killed);
                fs::remove_dir_all(&killed).unwrap();
            }
        }
    }
    success(attempt());
    assert_same(&expected, &killed);
}

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
