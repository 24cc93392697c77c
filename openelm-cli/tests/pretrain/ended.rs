//! Runs that an interrupt or a full disk ends, brought about by what only Linux has.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use openelm_testing::{failure, success, wait_for};

use crate::folder::{Scratch, assert_same, losses};

/// One process, and two processes, the second interrupted by the first.
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
        let left: Vec<String> = left.filter(|name| name.contains("partial")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    success(scratch.pretrain("full", &["--quiet", "--resume"]));
    assert_same(&scratch.path("undisturbed"), &scratch.path("full"));
}
