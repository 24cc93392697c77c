//! Killed, interrupted and resumed runs.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use openelm_testing::{failure, success, tales, wait_for};

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

/// One process, and two processes, the second interrupted by the first.
#[cfg(target_os = "linux")]
#[test]
fn interrupted_run_saves_a_checkpoint() {
    let scratch = Scratch::new();
    for (name, ranks) in [("one", "1"), ("two", "2")] {
        let more = ["--processes", ranks, "--quiet", "--save-every", "1000"];
        success(scratch.pretrain("undisturbed", &more));
        let mut command = scratch.pretrain(name, &more);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&scratch.path(name).join("metrics.jsonl"));
        thread::sleep(Duration::from_millis(150));
        let status = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(status.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        let message = String::from_utf8_lossy(&ended.stderr).into_owned();
        // The run may have reached its last step.
        assert!(matches!(ended.status.code(), Some(130 | 0)), "{message}");
        let done = losses(&scratch.path(name), "train_loss").len();
        if done > 0 {
            let state = scratch.path(name).join("training_state.safetensors");
            assert!(state.is_file(), "{done} steps and no state: {message}");
            success(scratch.pretrain(name, &[&more[..], &["--resume"]].concat()));
            assert_eq!(scratch.weights("undisturbed"), scratch.weights(name));
        }
        fs::remove_dir_all(scratch.path("undisturbed")).unwrap();
    }
}

/// A limit on the file length acts like a full disk: the last checkpoint stays valid.
#[cfg(target_os = "linux")]
#[test]
fn full_disk_keeps_the_last_checkpoint() {
    let scratch = Scratch::new();
    success(scratch.pretrain("undisturbed", &["--quiet"]));
    let mut child = scratch.pretrain("full", &["--quiet"]).spawn().unwrap();
    wait_for(&scratch.path("full/training_state.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    // The kill may leave a partial checkpoint.
    for folder in ["full", "full/checkpoints"] {
        for entry in fs::read_dir(scratch.path(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "partial") {
                if path.is_dir() {
                    fs::remove_dir_all(path).unwrap()
                } else {
                    fs::remove_file(path).unwrap()
                }
            }
        }
    }
    let state = scratch.path("full/training_state.safetensors");
    let before = fs::read(&state).unwrap();
    // Less than the state and more than a checkpoint; then less than both.
    for blocks in [before.len() / 512 - 100, 200] {
        let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let resumed = scratch.pretrain("full", &["--quiet", "--resume"]);
        let mut command = Command::new("dash");
        command
            .args(["-c", &line, "dash"])
            .arg(resumed.get_program());
        command.args(resumed.get_args()).stdin(Stdio::null());
        command.env("OPENBLAS_NUM_THREADS", "1");
        let message = failure(command, 1);
        assert!(message.contains("File too large"), "{message}");
        assert!(
            fs::read(&state).unwrap() == before,
            "the last state is gone"
        );
        let left = fs::read_dir(scratch.path("full")).unwrap();
        let left = left.chain(fs::read_dir(scratch.path("full/checkpoints")).unwrap());
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| name.ends_with(".partial")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    success(scratch.pretrain("full", &["--quiet", "--resume"]));
    assert_same(&scratch.path("undisturbed"), &scratch.path("full"));
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
