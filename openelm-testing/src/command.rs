//! The `openelm` tool as a process. Callers pass `env!("CARGO_BIN_EXE_openelm")`.

use std::{
    path::Path,
    process::{Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A command's exit code and output.
#[derive(Debug)]
pub struct Outcome {
    /// `None` after a signal.
    pub code: Option<i32>,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// `program` with `args` and an empty standard input, without the Hugging Face Hub: a path that does
/// not exist may look like the name of a repository.
pub fn command(program: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::null());
    command.env("HF_HUB_OFFLINE", "1");
    command
}

/// Runs a command that must not panic.
#[track_caller]
pub fn run(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    outcome
}

/// Runs a command that must succeed, and returns its standard output.
#[track_caller]
pub fn works(command: Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

/// Runs a command that must fail with `code`, an empty standard output, and one line on standard
/// error that contains `parts`.
#[track_caller]
pub fn fails(command: Command, code: i32, parts: &[&str]) {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    assert_one_line(&outcome.stderr, parts);
}

/// Checks that `stderr` is one line of the tool that contains `parts`.
#[track_caller]
pub fn assert_one_line(stderr: &str, parts: &[&str]) {
    assert!(stderr.starts_with("openelm: "), "{stderr}");
    assert!(
        stderr.ends_with('\n') && stderr.lines().count() == 1,
        "{stderr}"
    );
    for part in parts {
        assert!(stderr.contains(part), "{part} | {stderr}");
    }
}

/// Runs a command that must succeed, and returns its output.
#[track_caller]
pub fn success(mut command: Command) -> Output {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {stderr}");
    output
}

/// Runs a command that must fail with `code`, and returns its standard error.
#[track_caller]
pub fn failure(mut command: Command, code: i32) -> String {
    let output = command.output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{command:?}: {stderr}");
    stderr
}

/// Waits up to two minutes until `path` exists.
#[track_caller]
pub fn wait_for(path: &Path) {
    let started = Instant::now();
    while !path.exists() {
        assert!(
            started.elapsed() < Duration::from_secs(120),
            "{}",
            path.display()
        );
        thread::sleep(Duration::from_millis(5));
    }
}
