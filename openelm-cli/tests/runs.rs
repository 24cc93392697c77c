//! Run folders of `openelm finetune` and `openelm pretrain`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::{
    collections::BTreeSet,
    fs,
    path::PathBuf,
    process::{Command, Stdio},
};

use openelm_testing::{TempDir, failure, success, tales, wait_for};
use serde_json::Value;

const PRETRAIN: &str = r#"
max-seq-length = 16
batch-size = 4
learning-rate = 1e-3
warmup = 1

[model]
num_layers = 2
model_dim = 64
head_dim = 16
num_gqa_groups = 2
ffn_dim_divisor = 32
max_context_length = 64
"#;

/// A folder with data, removed on drop.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let folder = TempDir::new();
        let rows = |count: usize| -> String {
            let row = |i: usize| format!("{{\"text\": \"The fox had {i} apples and pears.\"}}\n");
            (0..count).map(row).collect()
        };
        let data = format!(
            "data = [{:?}]\nvalid = [{:?}]\ntokenizer = {:?}\n",
            folder.write("train.jsonl", rows(60)),
            folder.write("valid.jsonl", rows(6)),
            tales(),
        );
        folder.write("run.toml", data + PRETRAIN);
        Self(folder)
    }

    fn run(&self) -> PathBuf {
        self.0.join("run")
    }

    /// `openelm finetune` or `openelm pretrain` of `steps` steps into [`run`](Self::run).
    fn command(&self, name: &str, steps: &str, more: &[&str]) -> Command {
        let mut command = openelm_testing::command(env!("CARGO_BIN_EXE_openelm"), &[name]);
        if name == "finetune" {
            command.args(["--batch-size", "3", "--iters", steps]);
            command
                .arg("--model")
                .arg(tales())
                .arg("--data")
                .arg(&*self.0);
            command.arg("--adapter-path").arg(self.run());
        } else {
            command
                .arg("--config")
                .arg(self.0.join("run.toml"))
                .args(["--iters", steps]);
            command.arg("--output").arg(self.run());
        }
        command.args(more).env("OPENBLAS_NUM_THREADS", "1");
        command
    }
}

#[test]
fn rejects_second_process_until_the_first_is_killed() {
    for name in ["finetune", "pretrain"] {
        let scratch = Scratch::new();
        let more = ["--save-every", "1", "--quiet"];
        let mut first = scratch.command(name, "100000", &more);
        let mut first = first.stderr(Stdio::null()).spawn().unwrap();
        wait_for(&scratch.run().join("training_state.safetensors"));
        let resume = ["--resume", "--save-every", "1", "--quiet"];
        for more in [&more[..], &resume[..]] {
            let message = failure(scratch.command(name, "100000", more), 1);
            let holder = format!("process {} is training here", first.id());
            assert!(message.contains(&holder), "{message}");
        }
        first.kill().unwrap();
        first.wait().unwrap();
        // The folder is free again: only the options are rejected.
        let other = ["--resume", "--seed", "7", "--quiet"];
        let message = failure(scratch.command(name, "100000", &other), 1);
        assert!(message.contains("seed: expected 0, found 7"), "{message}");
    }
}

#[test]
fn json_events_have_the_keys_of_metrics() {
    for name in ["finetune", "pretrain"] {
        let scratch = Scratch::new();
        let output = success(scratch.command(name, "3", &["--json"]));
        let keys = |text: &str| -> BTreeSet<(String, Vec<String>)> {
            let lines = text.lines().map(|line| {
                let line: Value = serde_json::from_str(line).unwrap();
                let keys = line.as_object().unwrap().keys().cloned().collect();
                (line["event"].as_str().unwrap().to_owned(), keys)
            });
            let measured = |(event, _): &(String, _)| ["step", "validation"].contains(&&**event);
            lines.filter(measured).collect()
        };
        let printed = keys(&String::from_utf8(output.stdout).unwrap());
        let kept = keys(&fs::read_to_string(scratch.run().join("metrics.jsonl")).unwrap());
        assert_eq!(printed.len(), 2, "{printed:?}");
        assert_eq!(printed, kept);
    }
}
