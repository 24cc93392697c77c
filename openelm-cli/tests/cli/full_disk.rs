//! Write errors, by Linux's `/dev/full`.

use std::fs;

use crate::tool::{generate, openelm, tales};
use openelm_testing::{fails, run, works};

#[test]
fn fails_on_full_disk() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for args in [
        &["generate", "-q", "-p", "x", "-n", "4", "-m", &tales()][..],
        &[
            "generate",
            "-q",
            "--json",
            "-p",
            "x",
            "-n",
            "4",
            "-m",
            &tales(),
        ],
        &["info", "3B"],
        &["info", "3B", "--json"],
        &["completions", "zsh"],
        &["--help"],
    ] {
        let mut command = openelm(args);
        command.stdout(full());
        fails(command, 1, &["standard output", "No space left"]);
    }
    // Neither the output nor the error message can be written.
    let mut command = generate(&["-p", "x", "-n", "4"]);
    command.stderr(full());
    assert!(works(command).ends_with('\n'));
    let mut command = openelm(&["info", "/nowhere"]);
    command.stderr(full());
    assert_eq!(run(command).code, Some(1));
    let mut command = openelm(&["--frobnicate"]);
    command.stderr(full());
    assert_eq!(run(command).code, Some(2));
}
