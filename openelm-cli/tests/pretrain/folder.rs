//! A scratch folder with data and settings, and the files of a run in it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use openelm_testing::{TempDir, tales};
use serde_json::Value;

pub(crate) const SETTINGS: &str = r#"
max-seq-length = 32
batch-size = 8
micro-batch-size = 8
iters = 16
learning-rate = 3e-3
warmup = 3
steps-per-eval = 8
save-every = 1
keep-checkpoints = 3
average-last = 3
ema-decay = 0.9

[model]
num_layers = 2
model_dim = 64
head_dim = 16
num_gqa_groups = 2
ffn_dim_divisor = 32
max_context_length = 64
"#;

/// A folder with data and settings.
pub(crate) struct Scratch(pub(crate) TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new();
        let rows = |from: usize, count: usize| -> String {
            let row = |i: usize| {
                let name = ["fox", "king", "miller", "witch", "bear"][i % 5];
                let fruit = ["apples", "pears", "plums"][i % 3];
                let more = " and then some more of them".repeat(1 + i % 7);
                format!("{{\"text\": \"Once the {name} had {i} {fruit}{more}. That was all.\"}}\n")
            };
            (from..from + count).map(row).collect()
        };
        folder.write("train.jsonl", rows(0, 300));
        folder.write("valid.jsonl", rows(300, 9));
        let data = format!(
            "data = [{:?}]\nvalid = [{:?}]\ntokenizer = {:?}\n",
            folder.join("train.jsonl"),
            folder.join("valid.jsonl"),
            tales(),
        );
        folder.write("run.toml", data + SETTINGS);
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `openelm pretrain` into `output`, with `more` options.
    pub(crate) fn pretrain(&self, output: &str, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
        command
            .arg("pretrain")
            .arg("--config")
            .arg(self.path("run.toml"))
            .arg("--output")
            .arg(self.path(output))
            .args(more)
            .env("OPENBLAS_NUM_THREADS", "1")
            .stdin(Stdio::null());
        command
    }

    /// The final model's weights, by name.
    pub(crate) fn weights(&self, output: &str) -> Vec<u8> {
        let path = self.path(output).join("model/model.safetensors");
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// The files that must not depend on interruptions of the run.
#[cfg(target_os = "linux")]
pub(crate) fn results(output: &Path) -> Vec<(&'static str, Vec<u8>)> {
    let files = [
        "model/model.safetensors",
        "model/config.json",
        "model/tokenizer.json",
        "average/model.safetensors",
        "ema/model.safetensors",
        "training_state.safetensors",
        "checkpoints/step-000014/model.safetensors",
        "checkpoints/step-000016/model.safetensors",
    ];
    let read = |name: &'static str| {
        let bytes = fs::read(output.join(name));
        (
            name,
            bytes.unwrap_or_else(|error| panic!("{name}: {error}")),
        )
    };
    files.into_iter().map(read).collect()
}

pub(crate) fn metrics(output: &Path) -> Vec<Value> {
    let text = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(crate) fn losses(output: &Path, key: &str) -> Vec<f64> {
    let lines = metrics(output);
    lines.iter().filter_map(|line| line[key].as_f64()).collect()
}

#[cfg(target_os = "linux")]
pub(crate) fn assert_same(expected: &Path, found: &Path) {
    for ((name, expected), (_, found)) in results(expected).iter().zip(results(found)) {
        assert!(*expected == found, "{name} differs");
    }
    let steps: Vec<u64> = metrics(found)
        .iter()
        .filter(|line| line.get("train_loss").is_some())
        .map(|line| line["iteration"].as_u64().unwrap())
        .collect();
    assert_eq!(steps, (1..=16).collect::<Vec<_>>());
    let kept = fs::read_dir(found.join("checkpoints")).unwrap();
    let mut kept: Vec<String> = kept
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    kept.sort();
    assert_eq!(kept, ["step-000014", "step-000015", "step-000016"]);
}
