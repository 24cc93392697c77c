//! Runs whose processes are lost, found by what only Linux has: `/proc`.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use openelm_testing::{success, wait_for};

use crate::folder::{Scratch, assert_same};

/// The child processes of `parent`.
fn children(parent: u32) -> Vec<u32> {
    let path = format!("/proc/{parent}/task/{parent}/children");
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace()
        .map(|id| id.parse().unwrap())
        .collect()
}

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

fn kill(id: u32) {
    let killed = Command::new("kill").args(["-9", &id.to_string()]).status();
    assert!(killed.unwrap().success());
}
