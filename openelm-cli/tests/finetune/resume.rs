//! Killed runs and full disks.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use openelm_testing::{failure, success, wait_for};

use crate::folder::{RUN, Scratch, iterations, results};

#[test]
fn killed_and_resumed_run_gives_identical_files() {
    let scratch = Scratch::new();
    success(scratch.finetune("undisturbed", &RUN));
    let adapters = scratch.path("killed");
    let expected = results(&scratch.path("undisturbed"));
    let attempt = || {
        let resume = adapters.join("training_state.safetensors").is_file();
        let resume: &[&str] = if resume { &["--resume"] } else { &[] };
        scratch.finetune("killed", &[&RUN, resume].concat())
    };
    let compare = || {
        for ((name, expected), (_, found)) in expected.iter().zip(results(&adapters)) {
            assert!(*expected == found, "{name} differs");
        }
        assert_eq!(iterations(&adapters), (1..=24).collect::<Vec<_>>());
        let left = fs::read_dir(&adapters).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| name.contains("partial")).collect();
        assert!(left.is_empty(), "{left:?}");
    };
    // Kill times between loading and the last step; a checkpoint follows every step.
    let (mut state, mut killed) = (12345_u64, 0);
    while killed < 20 {
        let mut child = attempt().stderr(Stdio::null()).spawn().unwrap();
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(60 + (state >> 33) % 500));
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            None => killed += 1,
            // The run ended before the kill: repeat it.
            Some(code) => {
                assert_eq!(code, 0);
                compare();
                fs::remove_dir_all(&adapters).unwrap();
            }
        }
    }
    success(attempt());
    compare();
}

/// Limits the length of files that `command` can write, like a full disk.
#[cfg(unix)]
fn with_full_disk(command: &Command, kilobytes: u32) -> Command {
    let mut limited = Command::new("bash");
    limited
        .arg("-c")
        .arg(format!("ulimit -f {kilobytes}; trap '' XFSZ; exec \"$@\""))
        .arg("bash")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    limited
}

#[cfg(unix)]
#[test]
fn full_disk_keeps_the_last_checkpoint() {
    let scratch = Scratch::new();
    success(scratch.finetune("undisturbed", &RUN));
    // Run to the first checkpoint, then continue without space for another one.
    let mut child = scratch.finetune("full", &RUN).spawn().unwrap();
    let adapters = scratch.path("full");
    wait_for(&adapters.join("training_state.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    let partial = || -> Vec<PathBuf> {
        let files = fs::read_dir(&adapters).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|end| end == "partial"))
            .collect()
    };
    // The kill may leave a partial file.
    for path in partial() {
        fs::remove_file(path).unwrap();
    }
    let read = || fs::read(adapters.join("training_state.safetensors")).unwrap();
    let saved = read();
    let resumed = scratch.finetune("full", &[&RUN[..], &["--resume"]].concat());
    let message = failure(with_full_disk(&resumed, 64), 1);
    assert!(message.contains("File too large"), "{message}");
    assert!(saved == read(), "the last checkpoint changed");
    assert_eq!(partial(), Vec::<PathBuf>::new());
    success(resumed);
    assert_eq!(results(&scratch.path("undisturbed")), results(&adapters));
}
