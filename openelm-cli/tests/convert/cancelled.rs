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

/// Starts a conversion and sends it signals while it writes.
fn signalled(folder: &TempDir, mut command: Command, signals: &[&str]) -> process::Output {
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
    signals.iter().for_each(|signal| send(signal));
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
    let output = signalled(&folder, convert(&args), &["-KILL"]);
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
    for (signal, code, line) in [
        ("-INT", 130, "openelm: interrupted\n"),
        ("-TERM", 143, "openelm: interrupted by SIGTERM\n"),
        ("-HUP", 129, "openelm: interrupted by SIGHUP\n"),
    ] {
        let folder = TempDir::new();
        let source = large(&folder);
        let target = folder.at("target");
        let args = [&source, &target, "-q", "--no-tokenizer"];
        let output = signalled(&folder, convert(&args), &[signal]);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), line);
        assert_eq!(output.stdout, b"");
        assert_eq!(folder.names(), ["source"]);
    }
}

/// The second signal arrives before the first one has had an effect.
#[test]
fn second_signal_ends_conversion_at_once() {
    let folder = TempDir::new();
    let source = large(&folder);
    let target = folder.at("target");
    let args = [&source, &target, "-q", "--no-tokenizer"];
    let output = signalled(&folder, convert(&args), &["-INT", "-TERM"]);
    // The system may deliver both at once, in any order.
    let code = output.status.code();
    assert!(matches!(code, Some(130 | 143)), "{output:?}");
    assert_eq!((output.stdout, output.stderr), (Vec::new(), Vec::new()));
    assert!(!folder.join("target").exists());
    // The next conversion removes what is left.
    works(convert(
        &[&args[..], &["--quiet", "--verify", "none"]].concat(),
    ));
    assert_eq!(folder.names(), ["source", "target"]);
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
