//! Runs on several processes.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use openelm_testing::{failure, success, wait_for};

use crate::folder::{Scratch, assert_same, losses};

#[test]
fn ranks_give_the_losses_of_one_process() {
    let scratch = Scratch::new();
    success(scratch.pretrain("one", &["--quiet"]));
    let alone = losses(&scratch.path("one"), "train_loss");
    assert_eq!(alone.len(), 16);
    assert!(alone[15] < alone[0] - 0.5, "{alone:?}");
    for count in ["2", "4"] {
        success(scratch.pretrain(count, &["--quiet", "--processes", count]));
        let together = losses(&scratch.path(count), "train_loss");
        assert_eq!(together.len(), 16);
        for (a, b) in alone.iter().zip(&together) {
            assert!((a - b).abs() <= 1e-4 * a, "{count}: {a} {b}");
        }
        let valid = |name: &str| losses(&scratch.path(name), "val_loss");
        for (a, b) in valid("one").iter().zip(valid(count)) {
            assert!((a - b).abs() <= 1e-4 * a, "{count}: {a} {b}");
        }
    }
    // The same weights apart from rounding, and identical weights in a second run.
    success(scratch.pretrain("again", &["--quiet", "--processes", "2"]));
    assert_eq!(scratch.weights("2"), scratch.weights("again"));
    // Started on two processes and finished on one; started on one and finished on four.
    for (name, first, then) in [("fewer", "2", "1"), ("more", "1", "4")] {
        let mut command = scratch.pretrain(name, &["--processes", first, "--quiet"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        wait_for(&scratch.path(name).join("training_state.safetensors"));
        child.kill().unwrap();
        child.wait().unwrap();
        // Ranks end with the process that started them.
        thread::sleep(Duration::from_millis(500));
        success(scratch.pretrain(name, &["--processes", then, "--resume", "--quiet"]));
        let found = losses(&scratch.path(name), "train_loss");
        assert_eq!(found.len(), 16);
        for (a, b) in alone.iter().zip(&found) {
            assert!((a - b).abs() <= 1e-4 * a, "{name}: {a} {b}");
        }
    }
    let message = failure(scratch.pretrain("three", &["--processes", "3"]), 2);
    assert!(
        message.contains("--batch-size: expected a multiple of 3"),
        "{message}"
    );
}

/// The child processes of `parent`, from Linux's /proc.
#[cfg(target_os = "linux")]
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect()
}

#[cfg(target_os = "linux")]
#[test]
fn killed_rank_ends_the_run_which_can_be_resumed() {
    let scratch = Scratch::new();
    success(scratch.pretrain("undisturbed", &["--quiet", "--processes", "2"]));
    for victim in [1, 0] {
        let name = format!("rank-{victim}");
        let output = scratch.path(&name);
        let mut command = scratch.pretrain(&name, &["--processes", "2", "--quiet"]);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&output.join("training_state.safetensors"));
        let ranks = children(child.id());
        assert_eq!(ranks.len(), 2);
        kill(ranks[victim]);
        let started = Instant::now();
        let ended = child.wait_with_output().unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(ended.status.code(), Some(1));
        let message = String::from_utf8_lossy(&ended.stderr).into_owned();
        assert!(
            message.contains(&format!("rank {victim} of 2 ended early")),
            "{message}"
        );
        assert!(message.contains("with --resume"), "{message}");
        assert!(
            ranks
                .iter()
                .all(|id| !Path::new(&format!("/proc/{id}")).exists())
        );
        success(scratch.pretrain(&name, &["--processes", "2", "--resume", "--quiet"]));
        assert_same(&scratch.path("undisturbed"), &output);
    }
}

/// As under `mlx.launch`, which starts the ranks itself: each rank detects the loss.
#[cfg(target_os = "linux")]
#[test]
fn rank_without_launcher_detects_lost_peer() {
    let scratch = Scratch::new();
    let address = || {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        listener.local_addr().unwrap().to_string()
    };
    let hosts = scratch.path("hosts.json");
    fs::write(
        &hosts,
        serde_json::json!([[address()], [address()]]).to_string(),
    )
    .unwrap();
    let rank = |rank: &str| {
        let more = ["--quiet", "--process-timeout", "6", "--iters", "100000"];
        let mut command = scratch.pretrain("run", &more);
        command.env("MLX_RANK", rank).env("MLX_HOSTFILE", &hosts);
        command.stderr(Stdio::piped()).spawn().unwrap()
    };
    let (first, mut second) = (rank("0"), rank("1"));
    wait_for(&scratch.path("run/training_state.safetensors"));
    second.kill().unwrap();
    second.wait().unwrap();
    let started = Instant::now();
    let output = first.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(output.status.code(), Some(1));
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        message.contains("another process of the group is gone"),
        "{message}"
    );
}

#[cfg(target_os = "linux")]
fn kill(id: u32) {
    let killed = Command::new("kill").args(["-9", &id.to_string()]).status();
    assert!(killed.unwrap().success());
}
