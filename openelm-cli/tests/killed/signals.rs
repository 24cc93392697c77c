//! Ctrl-C, SIGTERM and SIGHUP, to one process or to all processes of a command.

use std::{
    fs,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Child, Command, Output},
    thread::sleep,
    time::Duration,
};

use openelm_testing::{TempDir, success, tales};

use crate::commands::{Kind, Scratch, send, spawn, wait};

/// The processes that receive a signal.
#[derive(Clone, Copy, Debug)]
enum To {
    Parent,
    Rank(usize),
    Group,
}

fn signal(child: &Child, signal: &str, to: To) {
    let id = child.id();
    match to {
        To::Parent => send(signal, &id.to_string()),
        To::Group => send(signal, &format!("-{id}")),
        To::Rank(rank) => {
            let list = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
            send(signal, list.split_whitespace().nth(rank).unwrap());
        }
    }
}

/// Enough steps for a signal before the last.
const LONG: [&str; 3] = ["--quiet", "--iters", "3000"];

#[test]
fn signals_save_the_run() {
    let scratch = Scratch::new();
    let mut cases = vec![
        (Kind::Finetune, "-INT", To::Parent),
        (Kind::Finetune, "-TERM", To::Parent),
        (Kind::Finetune, "-HUP", To::Parent),
        (Kind::Pretrain, "-INT", To::Group),
        (Kind::Pretrain, "-TERM", To::Parent),
        (Kind::Pretrain, "-HUP", To::Parent),
        (Kind::PretrainTwo, "-INT", To::Group),
        (Kind::PretrainTwo, "-HUP", To::Parent),
        (Kind::PretrainTwo, "-TERM", To::Group),
    ];
    if cfg!(target_os = "linux") {
        cases.extend([
            (Kind::PretrainTwo, "-TERM", To::Rank(0)),
            (Kind::PretrainTwo, "-HUP", To::Rank(1)),
            (Kind::PretrainTwo, "-INT", To::Rank(1)),
        ]);
    }
    for (i, (kind, name, to)) in cases.into_iter().enumerate() {
        let (code, line) = match name {
            "-INT" => (130, "openelm: interrupted\n"),
            "-TERM" => (143, "openelm: interrupted by SIGTERM\n"),
            _ => (129, "openelm: interrupted by SIGHUP\n"),
        };
        let output = format!("run-{i}");
        let more = [&LONG[..], &["--save-every", "100000"]].concat();
        let mut command = scratch.command(kind, &output, &more);
        command.process_group(0);
        let mut child = spawn(command);
        scratch.wait_for_step(&mut child, &output);
        signal(&child, name, to);
        let ended = child.wait_with_output().unwrap();
        let what = format!("{kind:?} {name} {to:?}: {ended:?}");
        assert_eq!(ended.status.code(), Some(code), "{what}");
        assert_eq!(String::from_utf8(ended.stderr).unwrap(), line, "{what}");
        assert!(
            scratch
                .path(&output)
                .join("training_state.safetensors")
                .is_file(),
            "{what}"
        );
        assert!(!scratch.path(&output).join("ranks.json").exists(), "{what}");
    }
}

/// The steps of an interrupted run are those of an undisturbed one.
#[test]
fn terminated_run_continues() {
    let scratch = Scratch::new();
    for kind in [Kind::Finetune, Kind::Pretrain, Kind::PretrainTwo] {
        let more = ["--quiet", "--save-every", "1000", "--iters", "60"];
        let mut child = spawn(scratch.command(kind, "parts", &more));
        scratch.wait_for_step(&mut child, "parts");
        signal(&child, "-TERM", To::Parent);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(143), "{ended:?}");
        success(scratch.command(kind, "parts", &more));
        success(scratch.command(kind, "whole", &more));
        let [whole, parts] = ["whole", "parts"].map(|name| scratch.files(name));
        for (name, bytes) in whole
            .iter()
            .filter(|(name, _)| !name.starts_with("average"))
        {
            assert!(parts.get(name) == Some(bytes), "{kind:?}: {name}");
        }
        for name in ["whole", "parts"] {
            fs::remove_dir_all(scratch.path(name)).unwrap();
        }
    }
}

/// As under `nohup`.
#[test]
fn ignored_hangup_stays_ignored() {
    let scratch = Scratch::new();
    for kind in [Kind::Finetune, Kind::PretrainTwo] {
        let run = scratch.command(kind, "run", &["--quiet"]);
        let mut command = Command::new("sh");
        command
            .args(["-c", "trap '' HUP; exec \"$@\"", "sh"])
            .arg(run.get_program())
            .args(run.get_args())
            .process_group(0);
        let mut child = spawn(command);
        scratch.wait_for_step(&mut child, "run");
        signal(&child, "-HUP", To::Group);
        let ended = child.wait_with_output().unwrap();
        assert_eq!(ended.status.code(), Some(0), "{ended:?}");
        fs::remove_dir_all(scratch.path("run")).unwrap();
    }
}

/// A command that waits for a file cannot be cancelled: the first signal ends it.
#[test]
fn first_signal_ends_a_command_that_waits_for_a_file() {
    let folder = TempDir::new();
    let made = |name: &str| {
        let path = folder.at(name);
        let made = Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(made.success());
        path
    };
    let (pipe, rows, toml) = (made("pipe"), made("rows.jsonl"), made("run.toml"));
    let (source, tokenizer) = (made("source.pt"), made("tokenizer.json"));
    let (output, model) = (folder.at("output"), tales());
    let model = model.to_str().unwrap();
    let pretrain = [
        "pretrain",
        "--iters",
        "9",
        "--num-transformer-layers",
        "2",
        "--output",
        &output,
    ];
    let pretrain = |more: &[&'static str], last: &[&str]| -> Vec<String> {
        let args = pretrain.iter().chain(more).chain(last);
        args.map(|arg| (*arg).to_owned()).collect()
    };
    let args = |args: &[&str]| -> Vec<String> { args.iter().map(|arg| (*arg).into()).collect() };
    let tune = ["finetune", "--model", model, "--adapter-path", &output];
    for command in [
        args(&["generate", "--model", model, "--prompt-file", &pipe]),
        args(&[&tune[..], &["--data", &rows]].concat()),
        args(&[&tune[..], &["--config", &toml]].concat()),
        pretrain(&[], &["--data", &rows, "--tokenizer", model]),
        pretrain(&[], &["--data", &rows, "--tokenizer", &tokenizer]),
        args(&["convert", &source, &output, "--no-tokenizer"]),
        args(&["tokenizer", "train", "--data", &rows, "--output", &output]),
    ] {
        for (name, number, code) in [("-INT", 2, 130), ("-TERM", 15, 143)] {
            let args: Vec<&str> = command.iter().map(String::as_str).collect();
            let run = openelm_testing::command(env!("CARGO_BIN_EXE_openelm"), &args);
            let mut child = spawn(run);
            sleep(Duration::from_millis(1500));
            assert_eq!(child.try_wait().unwrap(), None, "{command:?}");
            signal(&child, name, To::Parent);
            wait(|| child.try_wait().unwrap().is_some());
            let ended = child.wait_with_output().unwrap();
            let is_signalled = ended.status.signal() == Some(number);
            assert!(
                is_signalled || ended.status.code() == Some(code),
                "{ended:?}"
            );
        }
    }
}

/// Both signals arrive before the first one has had an effect.
#[test]
fn second_signal_ends_the_command_at_once() {
    let scratch = Scratch::new();
    let mut child = spawn(scratch.command(Kind::Finetune, "run", &LONG));
    scratch.wait_for_step(&mut child, "run");
    for name in ["-STOP", "-INT", "-TERM", "-CONT"] {
        signal(&child, name, To::Parent);
    }
    let ended: Output = child.wait_with_output().unwrap();
    assert_eq!(ended.status.code(), Some(143), "{ended:?}");
    assert_eq!(ended.stderr, b"");
}
