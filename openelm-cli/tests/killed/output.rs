//! Output that can no longer be written: a long command is no filter.

use std::io::{BufRead, BufReader};

use openelm_testing::success;

use crate::commands::{Kind, Scratch, assert_same, spawn};

#[test]
fn closed_output_ends_a_run_that_is_saved() {
    let scratch = Scratch::new();
    for kind in [Kind::Finetune, Kind::Pretrain, Kind::PretrainTwo] {
        let mut child = spawn(scratch.command(kind, "cut", &["--json"]));
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        stdout.read_line(&mut String::new()).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{kind:?}: {message}");
        assert!(
            message.contains("standard output: Broken pipe"),
            "{message}"
        );
        assert!(message.contains("is saved after iteration"), "{message}");
        assert!(message.contains("continue with --resume"), "{message}");
        // The same result as without an interruption.
        success(scratch.command(kind, "cut", &["--quiet"]));
        success(scratch.command(kind, "whole", &["--quiet"]));
        let [mut expected, mut found] = ["whole", "cut"].map(|name| scratch.files(name));
        for files in [&mut expected, &mut found] {
            // The save of the interruption is one more checkpoint.
            files
                .retain(|name, _| !name.starts_with("checkpoints") && !name.starts_with("average"));
        }
        assert_same(&expected, &found, &format!("{kind:?}"));
        for name in ["whole", "cut"] {
            std::fs::remove_dir_all(scratch.path(name)).unwrap();
        }
    }
}

#[cfg(target_os = "linux")]
#[test]
fn full_output_is_a_failure_with_a_result() {
    let scratch = Scratch::new();
    let full = || {
        std::fs::File::options()
            .write(true)
            .open("/dev/full")
            .unwrap()
    };
    for (kind, kept) in [
        (Kind::Finetune, "is saved after iteration 1;"),
        (Kind::Pretrain, "is saved after iteration 1;"),
        (Kind::PretrainTwo, "is saved after iteration 1;"),
        (Kind::Convert, "is complete"),
    ] {
        let mut command = scratch.command(kind, "full", &["--json"]);
        command.stdout(full());
        let outcome = openelm_testing::run(command);
        assert_eq!(outcome.code, Some(1), "{outcome:?}");
        let problem = "standard output: No space left on device";
        assert!(outcome.stderr.contains(problem), "{outcome:?}");
        assert!(outcome.stderr.contains(kept), "{kind:?}: {outcome:?}");
        assert!(scratch.path("full").is_dir());
        std::fs::remove_dir_all(scratch.path("full")).unwrap();
    }
}

/// Messages are not a result.
#[test]
fn closed_error_output_changes_nothing() {
    let scratch = Scratch::new();
    for kind in [
        Kind::Finetune,
        Kind::Pretrain,
        Kind::PretrainTwo,
        Kind::Convert,
    ] {
        let mut child = spawn(scratch.command(kind, &format!("{kind:?}"), &[]));
        drop(child.stderr.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{kind:?}");
    }
}
