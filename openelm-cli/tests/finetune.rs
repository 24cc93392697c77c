//! `openelm finetune`, `fuse` and `generate --adapter` as a user runs them, on the bundled model.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread,
    time::Duration,
};

use openelm_testing::{TempDir, failure, success, tales, wait_for};

/// A folder that is removed at the end.
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let folder = TempDir::new();
        let rows = |from: usize, count: usize| -> String {
            let row = |i: usize| {
                let name = ["fox", "king", "miller", "witch", "bear"][i % 5];
                format!(
                    "{{\"text\": \"The {name} had {i} apples{}.\"}}\n",
                    " and pears".repeat(i % 7)
                )
            };
            (from..from + count).map(row).collect()
        };
        folder.write("train.jsonl", rows(0, 30));
        folder.write("valid.jsonl", rows(30, 6));
        Self(folder)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `openelm finetune` on the folder's data into `adapters`, with `more` options.
    fn finetune(&self, adapters: &str, more: &[&str]) -> Command {
        let mut command = openelm(&[
            "finetune",
            "--scale",
            "2",
            "--model",
            tales().to_str().unwrap(),
            "--data",
        ]);
        command
            .arg(&*self.0)
            .arg("--adapter-path")
            .arg(self.path(adapters))
            .args(more);
        command
    }
}

fn openelm(args: &[&str]) -> Command {
    openelm_testing::command(env!("CARGO_BIN_EXE_openelm"), args)
}

const RUN: [&str; 19] = [
    "--iters",
    "24",
    "--batch-size",
    "3",
    "--learning-rate",
    "2e-3",
    "--lr-schedule",
    "cosine",
    "--dropout",
    "0.1",
    "--grad-accumulation-steps",
    "2",
    "--clip-norm",
    "1",
    "--steps-per-eval",
    "6",
    "--save-every",
    "1",
    "--quiet",
];

/// The bytes that must not depend on how often a run was interrupted.
fn results(adapters: &Path) -> Vec<(String, Vec<u8>)> {
    let files = [
        "adapters.safetensors",
        "adapter_config.json",
        "training_state.safetensors",
        "best/adapters.safetensors",
    ];
    let read = |name: &str| {
        let bytes = fs::read(adapters.join(name));
        (
            name.to_owned(),
            bytes.unwrap_or_else(|error| panic!("{name}: {error}")),
        )
    };
    files.into_iter().map(read).collect()
}

fn iterations(adapters: &Path) -> Vec<u64> {
    let text = fs::read_to_string(adapters.join("metrics.jsonl")).unwrap();
    let lines = text
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let steps = lines.filter(|line| line.get("train_loss").is_some());
    steps
        .map(|line| line["iteration"].as_u64().unwrap())
        .collect()
}

#[test]
fn killed_and_resumed_run_gives_identical_files() {
    let scratch = Scratch::new();
    success(scratch.finetune("undisturbed", &RUN));
    let adapters = scratch.path("killed");
    let expected = results(&scratch.path("undisturbed"));
    let attempt = || {
        let resume = adapters.join("training_state.safetensors").is_file();
        let resume: &[&str] = if resume { &["--resume"] } else { &[] };
        scratch.finetune("killed", &[&RUN, resume].concat())
    };
    let compare = || {
        for ((name, expected), (_, found)) in expected.iter().zip(results(&adapters)) {
            assert!(*expected == found, "{name} differs");
        }
        assert_eq!(iterations(&adapters), (1..=24).collect::<Vec<_>>());
        let left = fs::read_dir(&adapters).unwrap();
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| name.ends_with(".partial")).collect();
        assert!(left.is_empty(), "{left:?}");
    };
    // Moments from loading to the last save; there is a save after every step.
    let (mut state, mut killed) = (12345_u64, 0);
    while killed < 20 {
        let mut child = attempt().stderr(Stdio::null()).spawn().unwrap();
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(60 + (state >> 33) % 500));
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            None => killed += 1,
            // It was faster: another run.
            Some(code) => {
                assert_eq!(code, 0);
                compare();
                fs::remove_dir_all(&adapters).unwrap();
            }
        }
    }
    success(attempt());
    compare();
}

#[test]
fn trains_plots_generates_and_fuses() {
    let scratch = Scratch::new();
    let more = [
        "--iters",
        "30",
        "--learning-rate",
        "2e-3",
        "--steps-per-eval",
        "10",
        "--json",
    ];
    let output = success(scratch.finetune("adapters", &more));
    let events = String::from_utf8(output.stdout).unwrap();
    let events: Vec<serde_json::Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let losses: Vec<f64> = events
        .iter()
        .filter_map(|event| event["val_loss"].as_f64())
        .collect();
    assert_eq!(
        losses.len(),
        4,
        "before the first step and after 10, 20, 30: {losses:?}"
    );
    assert!(losses[3] < 0.7 * losses[0], "{losses:?}");
    assert_eq!(events.last().unwrap()["reason"], "iterations");

    let adapters = scratch.path("adapters");
    let png = fs::read(adapters.join("loss.png")).unwrap();
    assert_eq!(&png[..4], b"\x89PNG");
    assert!(
        fs::read_to_string(adapters.join("loss.svg"))
            .unwrap()
            .contains("validation")
    );

    let text = |model: &Path, more: &[&str]| {
        let mut command = openelm(&["generate", "--prompt", "The fox had", "-n", "12", "--quiet"]);
        command.arg("--model").arg(model).args(more);
        String::from_utf8(success(command).stdout).unwrap()
    };
    let adapter = adapters.to_str().unwrap();
    let base = text(&tales(), &[]);
    let adapted = text(&tales(), &["--adapter", adapter]);
    assert_ne!(base, adapted);
    assert!(adapted.contains("apples"), "{adapted}");
    assert_eq!(
        text(&tales(), &["--adapter", &format!("{adapter}=0")]),
        base
    );

    let mut fuse = openelm(&[
        "fuse",
        "--model",
        tales().to_str().unwrap(),
        "--adapter-path",
        adapter,
        "--dtype",
        "float32",
    ]);
    fuse.arg("--save-path").arg(scratch.path("fused"));
    success(fuse);
    assert_eq!(text(&scratch.path("fused"), &[]), adapted);
}

/// Files longer than this cannot be written by `command`, as if the disk were full.
#[cfg(unix)]
fn with_full_disk(command: &Command, kilobytes: u32) -> Command {
    let mut limited = Command::new("bash");
    limited
        .arg("-c")
        .arg(format!("ulimit -f {kilobytes}; trap '' XFSZ; exec \"$@\""))
        .arg("bash")
        .arg(command.get_program())
        .args(command.get_args())
        .stdin(Stdio::null());
    limited
}

#[cfg(unix)]
#[test]
fn full_disk_keeps_the_last_checkpoint() {
    let scratch = Scratch::new();
    success(scratch.finetune("undisturbed", &RUN));
    // As far as a save, and from there with no space for another.
    let mut child = scratch.finetune("full", &RUN).spawn().unwrap();
    let adapters = scratch.path("full");
    wait_for(&adapters.join("training_state.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    let partial = || -> Vec<PathBuf> {
        let files = fs::read_dir(&adapters).unwrap();
        let files = files.map(|entry| entry.unwrap().path());
        files
            .filter(|path| path.extension().is_some_and(|end| end == "partial"))
            .collect()
    };
    // The kill may have come in the middle of the next file.
    for path in partial() {
        fs::remove_file(path).unwrap();
    }
    let read = || fs::read(adapters.join("training_state.safetensors")).unwrap();
    let saved = read();
    let resumed = scratch.finetune("full", &[&RUN[..], &["--resume"]].concat());
    let told = failure(with_full_disk(&resumed, 64), 1);
    assert!(told.contains("File too large"), "{told}");
    assert!(saved == read(), "the last save was touched");
    assert_eq!(partial(), Vec::<PathBuf>::new());
    success(resumed);
    assert_eq!(results(&scratch.path("undisturbed")), results(&adapters));
}

#[test]
fn trains_on_one_row() {
    let scratch = Scratch::new();
    let row = scratch.path("one.jsonl");
    fs::write(&row, "{\"text\": \"The fox had nine apples.\"}\n").unwrap();
    let mut command = openelm(&["finetune", "--model", tales().to_str().unwrap(), "--data"]);
    command
        .arg(&row)
        .arg("--adapter-path")
        .arg(scratch.path("adapters"));
    command.args([
        "--iters",
        "5",
        "--batch-size",
        "4",
        "--learning-rate",
        "1e-3",
        "--json",
    ]);
    command.args(["--steps-per-report", "1"]);
    let told = String::from_utf8(success(command).stdout).unwrap();
    let events = told
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap());
    let losses: Vec<f64> = events
        .filter_map(|event| event["train_loss"].as_f64())
        .collect();
    assert_eq!(losses.len(), 5, "{told}");
    assert!(losses[4] < losses[0], "{losses:?}");
}

#[test]
fn fuses_adapter_of_quantized_model() {
    let scratch = Scratch::new();
    let (packed, adapters) = (scratch.path("tales-4bit"), scratch.path("adapters"));
    let mut convert = openelm(&["convert", tales().to_str().unwrap()]);
    convert.arg(&packed).args(["-q", "--quiet"]);
    success(convert);
    let mut train = openelm(&["finetune", "--keep-quantized", "--scale", "2", "--model"]);
    train
        .arg(&packed)
        .arg("--data")
        .arg(&*scratch.0)
        .arg("--adapter-path")
        .arg(&adapters);
    train.args(["--iters", "20", "--learning-rate", "2e-3", "--quiet"]);
    success(train);
    let text = |model: &Path, adapter: Option<&Path>| {
        let mut command = openelm(&["generate", "--prompt", "The fox had", "-n", "12", "--quiet"]);
        command.arg("--model").arg(model);
        if let Some(adapter) = adapter {
            command.arg("--adapter").arg(adapter);
        }
        String::from_utf8(success(command).stdout).unwrap()
    };
    let fuse = |to: &Path, more: &[&str]| {
        let mut command = openelm(&["fuse", "--model"]);
        command.arg(&packed).arg("--adapter-path").arg(&adapters);
        command.arg("--save-path").arg(to).args(more);
        success(command);
    };
    let adapted = text(&packed, Some(&adapters));
    assert_ne!(adapted, text(&packed, None));
    let plain = scratch.path("plain");
    fuse(&plain, &["--dequantize", "--dtype", "float32"]);
    assert_eq!(text(&plain, None), adapted);
    // Packed again it is rounded again; what was learnt stays.
    let again = scratch.path("again");
    fuse(&again, &[]);
    let size = |model: &Path| fs::metadata(model.join("model.safetensors")).unwrap().len();
    assert!(size(&again) < size(&plain) / 4, "packed again");
    assert!(text(&again, None).contains("apples"));
}

#[test]
fn rejects_invalid_options_and_data() {
    let scratch = Scratch::new();
    let bad = scratch.path("bad.jsonl");
    let one = |rows: &str, more: &[&str]| {
        fs::write(&bad, rows).unwrap();
        let mut command = openelm(&["finetune", "--model", tales().to_str().unwrap(), "--data"]);
        command
            .arg(&bad)
            .arg("--adapter-path")
            .arg(scratch.path("none"))
            .args(more);
        failure(command, 1)
    };
    assert!(one("{\"text\": \"a\"}\n{\"text\": 3}\n", &[]).contains("bad.jsonl:2"));
    assert!(one("{\"text\": \"a\"\n", &[]).contains("bad.jsonl:1"));
    assert!(one("", &[]).contains("bad.jsonl"));
    assert!(one("{\"prompt\": \"a\", \"completion\": \"\"}\n", &[]).contains("bad.jsonl:1"));
    assert!(!scratch.path("none").exists(), "nothing was begun");

    let told = failure(scratch.finetune("none", &["--keys", "qkv"]), 2);
    assert!(
        told.contains("`qkv`") && told.contains("qkv_proj"),
        "{told}"
    );
    let told = failure(scratch.finetune("none", &["--num-layers", "0"]), 2);
    assert!(
        told.contains("num_layers: expected at least 1, found 0"),
        "{told}"
    );
    let told = failure(scratch.finetune("none", &["--optimizer", "adamm"]), 2);
    assert!(told.contains("adafactor"), "{told}");
    fs::write(scratch.path("run.toml"), "iters = 3\nbatchsize = 2\n").unwrap();
    let file = scratch.path("run.toml");
    let told = failure(
        scratch.finetune("none", &["--config", file.to_str().unwrap()]),
        1,
    );
    assert!(
        told.contains("line 2") && told.contains("`batchsize`"),
        "{told}"
    );

    success(scratch.finetune(
        "run",
        &["--iters", "2", "--quiet", "--learning-rate", "1e-4"],
    ));
    let told = failure(scratch.finetune("run", &["--iters", "3"]), 1);
    assert!(told.contains("resume"), "{told}");
    let other = [
        "--iters",
        "3",
        "--resume",
        "--learning-rate",
        "2e-4",
        "--quiet",
    ];
    let told = failure(scratch.finetune("run", &other), 1);
    assert!(told.contains("learning_rate: 0.0001, now 0.0002"), "{told}");

    // A run that diverges stops, says so, and leaves its last save.
    let before = success(scratch.finetune(
        "wild",
        &[
            "--iters",
            "3",
            "--save-every",
            "1",
            "--json",
            "--optimizer",
            "sgd",
            "--learning-rate",
            "1e-3",
        ],
    ));
    assert!(!before.stdout.is_empty());
    let wild = [
        "--iters",
        "9",
        "--optimizer",
        "sgd",
        "--learning-rate",
        "1e30",
    ];
    let told = failure(scratch.finetune("wilder", &wild), 1);
    assert!(told.contains("lower learning rate"), "{told}");
}
