//! Data, and long commands that use it.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use openelm_testing::{TempDir, tales};
use serde_json::Value;

const FINETUNE: &str = "
batch-size = 2
iters = 24
save-every = 5
steps-per-eval = 4
num-layers = 2
learning-rate = 1e-4
";

const PRETRAIN: &str = r#"
max-seq-length = 16
batch-size = 4
learning-rate = 1e-3
warmup = 1
iters = 40
save-every = 5
steps-per-eval = 8
keep-checkpoints = 2

[model]
num_layers = 2
model_dim = 64
head_dim = 16
num_gqa_groups = 2
ffn_dim_divisor = 32
max_context_length = 64
"#;

/// A long command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Finetune,
    Pretrain,
    /// Pre-training with two processes.
    PretrainTwo,
    Convert,
}

/// A folder with data and the outputs of commands.
pub(crate) struct Scratch(pub(crate) TempDir);

impl Scratch {
    pub(crate) fn new() -> Self {
        let folder = TempDir::new();
        let rows = |count: usize| -> String {
            let row = |i: usize| format!("{{\"text\": \"The fox had {i} apples and pears.\"}}\n");
            (0..count).map(row).collect()
        };
        let data = format!(
            "data = [{:?}]\nvalid = [{:?}]\ntokenizer = {:?}\n",
            folder.write("data/train.jsonl", rows(60)),
            folder.write("data/valid.jsonl", rows(6)),
            tales(),
        );
        folder.write("run.toml", data + PRETRAIN);
        folder.write("tune.toml", FINETUNE);
        Self(folder)
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// The command, into `output`, with `more` options. Training has `--resume`.
    pub(crate) fn command(&self, kind: Kind, output: &str, more: &[&str]) -> Command {
        let output = self.0.at(output);
        let (model, data) = (tales(), self.0.at("data"));
        let (tune, config) = (self.0.at("tune.toml"), self.0.at("run.toml"));
        let model = model.to_str().unwrap();
        let args = match kind {
            Kind::Finetune => vec![
                "finetune",
                "--resume",
                "--config",
                &tune,
                "--model",
                model,
                "--data",
                &data,
                "--adapter-path",
                &output,
            ],
            Kind::Pretrain => vec![
                "pretrain", "--resume", "--config", &config, "--output", &output,
            ],
            Kind::PretrainTwo => vec![
                "pretrain",
                "--resume",
                "--config",
                &config,
                "--output",
                &output,
                "--processes",
                "2",
            ],
            Kind::Convert => vec!["convert", model, &output, "--force"],
        };
        let mut command = openelm_testing::command(env!("CARGO_BIN_EXE_openelm"), &args);
        command.args(more).env("OPENBLAS_NUM_THREADS", "1");
        command
    }

    /// The names and contents of all files in `output`, without those that depend on time.
    pub(crate) fn files(&self, output: &str) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        collect(&self.path(output), "", &mut files);
        files
    }

    /// Waits until the run `child` in `output` has ended its first step and handled it.
    #[track_caller]
    pub(crate) fn wait_for_step(&self, child: &mut Child, output: &str) {
        let metrics = self.path(output).join("metrics.jsonl");
        wait(|| {
            assert_eq!(child.try_wait().unwrap(), None, "it has ended");
            let steps = |text: String| text.matches("\"step\"").count();
            // The first step is recorded before the command handles its event.
            fs::read_to_string(&metrics).is_ok_and(|text| steps(text) > 1)
        });
    }
}

fn collect(folder: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = format!("{prefix}{}", path.file_name().unwrap().to_str().unwrap());
        if path.is_dir() {
            files.insert(format!("{name}/"), Vec::new());
            collect(&path, &format!("{name}/"), files);
            continue;
        }
        let bytes = match name.as_str() {
            "run.lock" => Vec::new(),
            "convert-report.json" => timeless(&fs::read(&path).unwrap()),
            "metrics.jsonl" => {
                let text = fs::read_to_string(&path).unwrap();
                let lines = text.lines().map(|line| timeless(line.as_bytes()));
                lines.collect::<Vec<_>>().join(&b'\n')
            }
            _ => fs::read(&path).unwrap(),
        };
        files.insert(name, bytes);
    }
}

/// A JSON object without the values that are measured.
fn timeless(json: &[u8]) -> Vec<u8> {
    let mut value: Value = serde_json::from_slice(json).unwrap();
    let object = value.as_object_mut().unwrap();
    for key in [
        "tokens_per_second",
        "peak_memory_bytes",
        "seconds",
        "target",
    ] {
        object.remove(key);
    }
    if let Some(verification) = object.get_mut("verification") {
        verification.as_object_mut().unwrap().remove("seconds");
    }
    value.to_string().into_bytes()
}

/// Compares the files of two outputs; contents are not shown.
#[track_caller]
pub(crate) fn assert_same(
    expected: &BTreeMap<String, Vec<u8>>,
    found: &BTreeMap<String, Vec<u8>>,
    what: &str,
) {
    let names = |files: &BTreeMap<String, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
    assert_eq!(names(expected), names(found), "{what}");
    for (name, bytes) in expected {
        assert!(found[name] == *bytes, "{what}: {name} differs");
    }
}

/// Waits up to two minutes.
#[track_caller]
pub(crate) fn wait(mut until: impl FnMut() -> bool) {
    let started = Instant::now();
    while !until() {
        assert!(started.elapsed() < Duration::from_secs(120), "timeout");
        sleep(Duration::from_millis(2));
    }
}

/// Starts a command whose output is captured.
pub(crate) fn spawn(mut command: Command) -> Child {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn().unwrap()
}

/// Sends `signal` to `target`, a process id, or a process group if it begins with a minus sign.
pub(crate) fn send(signal: &str, target: &str) {
    let sent = Command::new("kill").args([signal, "--", target]).status();
    assert!(sent.unwrap().success());
}
