//! Full disks.

use std::{
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use openelm_testing::{failure, success, wait_for};

use crate::folder::{RUN, Scratch, results};

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
