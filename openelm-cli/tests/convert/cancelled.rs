//! Killed and interrupted conversions, and full disks.

use std::{
    fs,
    process::{self, Command, Stdio},
    thread::sleep,
    time::Duration,
};

use openelm_core::{Config, config::LayerWiseConfig};
use openelm_testing::TempDir;
use serde_json::Value;

use crate::{
    command::{convert, works},
    tool::{tales, write_zeros},
};
#[cfg(target_os = "linux")]
use openelm_testing::fails;

/// A large model of zeros (a sparse file), so that its conversion takes some time.
fn large(folder: &TempDir) -> String {
    let config = Config::layer_wise(LayerWiseConfig {
        model_dim: 512,
        num_transformer_layers: 24,
        vocab_size: 4096,
        ..LayerWiseConfig::default()
    })
    .unwrap();
    let source = folder.join("source");
    fs::create_dir(&source).unwrap();
    write_zeros(&source, &config);
    folder.at("source")
}

/// Starts a conversion and sends it a signal while it writes.
fn signalled(folder: &TempDir, mut command: Command, signal: &str) -> process::Output {
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let send = |signal: &str| {
        let id = child.id().to_string();
        assert!(
            Command::new("kill")
                .args([signal, &id])
                .status()
                .unwrap()
                .success()
        );
    };
    let written = folder.join(".target.openelm-partial/model/model.safetensors");
    for _ in 0..10_000 {
        if written.exists() {
            break;
        }
        sleep(Duration::from_millis(2));
    }
    // Stopped in the middle of the conversion.
    send("-STOP");
    assert!(written.exists());
    send(signal);
    send("-CONT");
    child.wait_with_output().unwrap()
}

#[test]
fn killed_conversion_keeps_old_target_and_can_be_repeated() {
    let folder = TempDir::new();
    let source = large(&folder);
    let target = folder.at("target");
    works(convert(&[&tales(), &target, "--quiet", "--verify", "none"]));
    let before = folder.files("target");
    let args = [
        &source,
        &target,
        "--force",
        "-q",
        "--no-tokenizer",
        "--verify",
        "none",
    ];
    let output = signalled(&folder, convert(&args), "-KILL");
    assert_eq!(output.status.code(), None);
    assert_eq!(
        folder.names(),
        [".target.openelm-partial", "source", "target"]
    );
    let mut after = folder.files("target");
    let lock = after.remove("run.lock");
    assert!(lock.is_some_and(|text| text.ends_with(b" writing\n")));
    assert!(after == before);

    let report = works(convert(&[&args[..], &["--json"]].concat()));
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(folder.names(), ["source", "target"]);
    let written = fs::metadata(folder.join("target/model.safetensors"))
        .unwrap()
        .len();
    assert!(written > report["bytes"].as_u64().unwrap());
    for name in ["tokenizer.json", "run.lock"] {
        assert!(!folder.join("target").join(name).exists(), "{name}");
    }
}

#[test]
fn interrupted_conversion_leaves_nothing() {
    let folder = TempDir::new();
    let source = large(&folder);
    let target = folder.at("target");
    let args = [&source, &target, "-q", "--no-tokenizer"];
    let output = signalled(&folder, convert(&args), "-INT");
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!(output.stderr, b"openelm: interrupted\n");
    assert_eq!(output.stdout, b"");
    assert_eq!(folder.names(), ["source"]);
}

/// A source without data blocks a conversion, so that it does not notice the first Ctrl-C.
#[cfg(target_os = "linux")]
#[test]
fn second_interrupt_ends_blocked_conversion() {
    const SIGINT: u32 = 2;
    let folder = TempDir::new();
    let source = folder.at("source.pt");
    assert!(
        Command::new("mkfifo")
            .arg(&source)
            .status()
            .unwrap()
            .success()
    );
    let mut child = convert(&[&source, &folder.at("target"), "--no-tokenizer"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    // Checks whether the signal is in a signal set of the process.
    let is_in = |set: &str| {
        let status = fs::read_to_string(format!("/proc/{id}/status")).unwrap();
        let signals = status.lines().find_map(|line| line.strip_prefix(set));
        let signals = signals.unwrap().trim_start_matches(':').trim();
        u64::from_str_radix(signals, 16).unwrap() >> (SIGINT - 1) & 1 == 1
    };
    let wait = |until: &mut dyn FnMut() -> bool| {
        (0..3000).any(|_| {
            sleep(Duration::from_millis(10));
            until()
        })
    };
    let interrupt = || {
        let kill = Command::new("kill").args(["-INT", &id]).status().unwrap();
        assert!(kill.success());
    };
    assert!(wait(&mut || is_in("SigCgt")), "Ctrl-C is not handled");
    interrupt();
    // The first signal was delivered, and the program still runs.
    assert!(wait(&mut || !is_in("ShdPnd")));
    sleep(Duration::from_millis(300));
    assert_eq!(child.try_wait().unwrap(), None);
    interrupt();
    let ended = wait(&mut || child.try_wait().unwrap().is_some());
    if !ended {
        child.kill().unwrap();
    }
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    assert_eq!((output.stdout, output.stderr), (Vec::new(), Vec::new()));
    assert_eq!(folder.names(), ["source.pt"]);
}

#[cfg(target_os = "linux")]
#[test]
fn full_disk_is_reported_and_nothing_is_left() {
    let folder = TempDir::new();
    for (target, kilobytes, file) in [
        ("target", 300, "target/model.safetensors"),
        ("target", 4, "target/model.safetensors"),
        ("target.gguf", 300, "target.gguf"),
    ] {
        // A limit on the file length acts like a full disk.
        let script = format!("ulimit -f {kilobytes}; exec \"$@\"");
        let mut command = Command::new("bash");
        command
            .args([
                "-c",
                &script,
                "bash",
                env!("CARGO_BIN_EXE_openelm"),
                "convert",
            ])
            .args([&tales(), &folder.at(target)])
            .stdin(Stdio::null());
        // The error names the final path, not the temporary one.
        let message = format!("{}: File too large", folder.at(file));
        fails(command, 1, &[&message]);
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
}
