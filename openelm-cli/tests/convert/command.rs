//! `openelm convert`.

use std::process::Command;

use openelm_testing::run;

use crate::tool::openelm;

pub(crate) fn convert(args: &[&str]) -> Command {
    openelm(&[&["convert"], args].concat())
}

/// Runs a command that has to work with nothing on stderr and returns its stdout.
#[track_caller]
pub(crate) fn works(command: Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(outcome.stderr, "");
    outcome.stdout
}
