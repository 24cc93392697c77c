//! Commands that end early: closed pipes and Ctrl-C.

use std::{
    io::Read,
    process::{Command, Stdio},
};

use crate::tool::{generate, openelm, parse, tales};
use openelm_testing::{Outcome, works};

#[cfg(unix)]
#[test]
fn closed_pipes_end_quietly() {
    let long = ["-p", "Once upon a time", "-n", "200", "--ignore-eos"];
    for json in [&[][..], &["--json"]] {
        let mut command = generate(&[&long[..], json].concat());
        let streams = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    // The reader of standard error may leave first, too.
    let mut command = generate(&["-p", "x", "-n", "2"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Sends SIGINT after the first byte of output, and returns the command's outcome.
#[cfg(unix)]
fn interrupted(mut command: Command) -> Outcome {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut bytes = vec![0];
    stdout.read_exact(&mut bytes).unwrap();
    let id = child.id().to_string();
    let kill = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(kill.success());
    stdout.read_to_end(&mut bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(bytes).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[cfg(unix)]
#[test]
fn interrupt_keeps_generated_text() {
    let long = ["-p", "Once upon a time", "-n", "500", "--ignore-eos"];
    let whole = works(generate(&[&long[..], &["-q"]].concat()));
    let quiet = interrupted(generate(&[&long[..], &["-q"]].concat()));
    assert_eq!(quiet.code, Some(130), "{quiet:?}");
    assert_eq!(quiet.stderr, "openelm: interrupted\n");
    let text = quiet.stdout.strip_suffix('\n').unwrap();
    assert!(!text.is_empty() && whole.starts_with(text) && whole.len() > text.len() + 1);

    let outcome = interrupted(generate(&long));
    assert_eq!(outcome.code, Some(130), "{outcome:?}");
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{outcome:?}");
    assert!(lines[0].starts_with("[interrupted] "), "{outcome:?}");
    assert_eq!(lines[1], "openelm: interrupted");

    let json = interrupted(generate(&[&long[..], &["-q", "--json"]].concat()));
    assert_eq!(json.code, Some(130), "{json:?}");
    let last = parse(json.stdout.lines().last().unwrap());
    assert_eq!(last["reason"], "cancelled");
}

/// A benchmark prints nothing until it ends, so it is interrupted after a fixed time, at about its
/// second measurement. It must not hang at any point.
#[cfg(unix)]
#[test]
fn interrupt_ends_benchmark() {
    use std::{thread::sleep, time::Duration};
    let args = ["--prompt-tokens", "300", "-n", "100", "--repeat", "1000"];
    let mut command = openelm(&[&["bench", "-m", &tales()], &args[..]].concat());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    sleep(Duration::from_secs(3));
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    for _ in 0..300 {
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(130));
            assert_eq!(output.stdout, b"");
            assert_eq!(output.stderr, b"openelm: interrupted\n");
            return;
        }
        sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("still running");
}
