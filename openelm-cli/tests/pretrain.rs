//! `openelm pretrain` as a user runs it: killed and resumed, on several processes, and what it
//! refuses.
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
    time::{Duration, Instant},
};

use openelm_testing::{TempDir, failure, success, tales, wait_for};
use serde_json::Value;

const SETTINGS: &str = r#"
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
struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
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

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// `openelm pretrain` into `output`, with `more` options.
    fn pretrain(&self, output: &str, more: &[&str]) -> Command {
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
    fn weights(&self, output: &str) -> Vec<u8> {
        let path = self.path(output).join("model/model.safetensors");
        fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
    }
}

/// The bytes that must not depend on how often a run was interrupted.
fn results(output: &Path) -> Vec<(&'static str, Vec<u8>)> {
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

fn metrics(output: &Path) -> Vec<Value> {
    let text = fs::read_to_string(output.join("metrics.jsonl")).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn losses(output: &Path, key: &str) -> Vec<f64> {
    let lines = metrics(output);
    lines.iter().filter_map(|line| line[key].as_f64()).collect()
}

fn assert_same(expected: &Path, found: &Path) {
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

#[test]
fn killed_and_resumed_run_gives_identical_files() {
    let scratch = Scratch::new();
    success(scratch.pretrain("undisturbed", &["--quiet"]));
    let (expected, killed) = (scratch.path("undisturbed"), scratch.path("killed"));
    let attempt = || {
        let resume = killed.join("training_state.safetensors").is_file();
        let resume: &[&str] = if resume { &["--resume"] } else { &[] };
        scratch.pretrain("killed", &[&["--quiet"], resume].concat())
    };
    // Moments from loading to the last save; there is a save after every step.
    let (mut state, mut kills) = (98_765_u64, 0);
    while kills < 20 {
        let mut child = attempt().stderr(Stdio::null()).spawn().unwrap();
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        thread::sleep(Duration::from_millis(100 + (state >> 33) % 900));
        child.kill().unwrap();
        match child.wait().unwrap().code() {
            None => kills += 1,
            // It was faster: another run.
            Some(code) => {
                assert_eq!(code, 0);
                assert_same(&expected, &killed);
                fs::remove_dir_all(&killed).unwrap();
            }
        }
    }
    success(attempt());
    assert_same(&expected, &killed);
}

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
    // It is the same weights but for rounding, and the same from one run to the next.
    success(scratch.pretrain("again", &["--quiet", "--processes", "2"]));
    assert_eq!(scratch.weights("2"), scratch.weights("again"));
    // Begun by two, ended by one; begun by one, ended by four.
    for (name, first, then) in [("fewer", "2", "1"), ("more", "1", "4")] {
        let mut command = scratch.pretrain(name, &["--processes", first, "--quiet"]);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        wait_for(&scratch.path(name).join("training_state.safetensors"));
        child.kill().unwrap();
        child.wait().unwrap();
        // Ranks end with whoever started them.
        thread::sleep(Duration::from_millis(500));
        success(scratch.pretrain(name, &["--processes", then, "--resume", "--quiet"]));
        let found = losses(&scratch.path(name), "train_loss");
        assert_eq!(found.len(), 16);
        for (a, b) in alone.iter().zip(&found) {
            assert!((a - b).abs() <= 1e-4 * a, "{name}: {a} {b}");
        }
    }
    let told = failure(scratch.pretrain("three", &["--processes", "3"]), 2);
    assert!(
        told.contains("--batch-size: expected a multiple of 3"),
        "{told}"
    );
}

/// The processes that `parent` started, by Linux' own count.
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
        let told = child.wait_with_output().unwrap();
        assert!(started.elapsed() < Duration::from_secs(20));
        assert_eq!(told.status.code(), Some(1));
        let told = String::from_utf8_lossy(&told.stderr).into_owned();
        assert!(
            told.contains(&format!("rank {victim} of 2 ended early")),
            "{told}"
        );
        assert!(told.contains("--resume goes on"), "{told}");
        assert!(
            ranks
                .iter()
                .all(|id| !Path::new(&format!("/proc/{id}")).exists())
        );
        success(scratch.pretrain(&name, &["--processes", "2", "--resume", "--quiet"]));
        assert_same(&scratch.path("undisturbed"), &output);
    }
}

/// Of one process and of two, the second told by the one that started it.
#[cfg(target_os = "linux")]
#[test]
fn interrupted_run_saves_a_checkpoint() {
    let scratch = Scratch::new();
    for (name, ranks) in [("one", "1"), ("two", "2")] {
        let more = ["--processes", ranks, "--quiet", "--save-every", "1000"];
        success(scratch.pretrain("undisturbed", &more));
        let mut command = scratch.pretrain(name, &more);
        let child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait_for(&scratch.path(name).join("metrics.jsonl"));
        thread::sleep(Duration::from_millis(150));
        let told = Command::new("kill")
            .args(["-INT", &child.id().to_string()])
            .status();
        assert!(told.unwrap().success());
        let ended = child.wait_with_output().unwrap();
        let told = String::from_utf8_lossy(&ended.stderr).into_owned();
        // It may have been at its last step.
        assert!(matches!(ended.status.code(), Some(130 | 0)), "{told}");
        let done = losses(&scratch.path(name), "train_loss").len();
        if done > 0 {
            let state = scratch.path(name).join("training_state.safetensors");
            assert!(state.is_file(), "{done} steps and no state: {told}");
            success(scratch.pretrain(name, &[&more[..], &["--resume"]].concat()));
            assert_eq!(scratch.weights("undisturbed"), scratch.weights(name));
        }
        fs::remove_dir_all(scratch.path("undisturbed")).unwrap();
    }
}

/// As under `mlx.launch`, which starts the ranks itself: they notice on their own.
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
    let told = first.wait_with_output().unwrap();
    assert!(started.elapsed() < Duration::from_secs(30));
    assert_eq!(told.status.code(), Some(1));
    let told = String::from_utf8_lossy(&told.stderr).into_owned();
    assert!(
        told.contains("another process of the group is gone"),
        "{told}"
    );
}

#[cfg(target_os = "linux")]
fn kill(id: u32) {
    let killed = Command::new("kill").args(["-9", &id.to_string()]).status();
    assert!(killed.unwrap().success());
}

/// Files may not grow beyond a limit, as on a full disk: the last save stays, and serves.
#[cfg(target_os = "linux")]
#[test]
fn full_disk_keeps_the_last_checkpoint() {
    let scratch = Scratch::new();
    success(scratch.pretrain("undisturbed", &["--quiet"]));
    let mut child = scratch.pretrain("full", &["--quiet"]).spawn().unwrap();
    wait_for(&scratch.path("full/training_state.safetensors"));
    child.kill().unwrap();
    child.wait().unwrap();
    // The kill may have come in the middle of the next save.
    for folder in ["full", "full/checkpoints"] {
        for entry in fs::read_dir(scratch.path(folder)).unwrap() {
            let path = entry.unwrap().path();
            if path.extension().is_some_and(|end| end == "partial") {
                if path.is_dir() {
                    fs::remove_dir_all(path).unwrap()
                } else {
                    fs::remove_file(path).unwrap()
                }
            }
        }
    }
    let state = scratch.path("full/training_state.safetensors");
    let before = fs::read(&state).unwrap();
    // Less than the state, more than a checkpoint; and less than either.
    for blocks in [before.len() / 512 - 100, 200] {
        let line = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$@\"");
        let resumed = scratch.pretrain("full", &["--quiet", "--resume"]);
        let mut command = Command::new("dash");
        command
            .args(["-c", &line, "dash"])
            .arg(resumed.get_program());
        command.args(resumed.get_args()).stdin(Stdio::null());
        command.env("OPENBLAS_NUM_THREADS", "1");
        let told = failure(command, 1);
        assert!(told.contains("File too large"), "{told}");
        assert!(
            fs::read(&state).unwrap() == before,
            "the last state is gone"
        );
        let left = fs::read_dir(scratch.path("full")).unwrap();
        let left = left.chain(fs::read_dir(scratch.path("full/checkpoints")).unwrap());
        let left = left.map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let left: Vec<String> = left.filter(|name| name.ends_with(".partial")).collect();
        assert!(left.is_empty(), "{left:?}");
    }
    success(scratch.pretrain("full", &["--quiet", "--resume"]));
    assert_same(&scratch.path("undisturbed"), &scratch.path("full"));
}

#[test]
fn writes_events_plots_and_models() {
    let scratch = Scratch::new();
    let more = ["--iters", "40", "--json", "--save-dtype", "bfloat16"];
    let output = success(scratch.pretrain("run", &more));
    let events = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = events
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(events.last().unwrap()["reason"], "steps");
    let run = scratch.path("run");
    let bits = losses(&run, "bits_per_byte");
    assert_eq!(bits.len(), 5, "after every eighth step: {bits:?}");
    assert!(bits[4] < 0.8 * bits[0], "{bits:?}");
    let rates = losses(&run, "learning_rate");
    // 1e-6, then (3e-3 - 1e-6) / 3 more; the last but one of a cosine over 38 updates.
    assert_eq!(
        rates[..4],
        [1e-6, 0.001_000_67, 0.002_000_33, 0.003].map(|r: f32| f64::from(r))
    );
    assert_eq!(rates[39], f64::from(0.000_318_41_f32));
    for picture in ["loss", "learning_rate"] {
        let png = fs::read(run.join(picture).with_extension("png")).unwrap();
        assert_eq!(&png[..4], b"\x89PNG");
        let svg = fs::read_to_string(run.join(picture).with_extension("svg")).unwrap();
        assert!(svg.contains("Pre-training"));
    }
    for model in ["model", "average", "ema", "checkpoints/step-000040"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
        command.args([
            "generate",
            "--prompt",
            "Once the fox",
            "-n",
            "5",
            "--quiet",
            "--model",
        ]);
        command.arg(run.join(model)).stdin(Stdio::null());
        let text = success(command).stdout;
        assert!(!text.is_empty(), "{model}");
    }
}

#[test]
fn dry_run_reports_estimates_and_writes_nothing() {
    let scratch = Scratch::new();
    let output = success(scratch.pretrain("run", &["--dry-run", "--json"]));
    assert!(!scratch.path("run").exists());
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    // By hand: the embedding 2048·64; qkv 64·64 and 128·64 of 1 and 2 KV heads; out 64·32 and
    // 64·64; the FFN 3·64·32 and 3·64·256; norms 64·(4 + 1) and 16·4.
    let parameters = 131_072 + 64 * 64 + 128 * 64 + 64 * 32 + 64 * 64 + 192 * (32 + 256) + 384;
    assert_eq!(told["parameters"], parameters);
    assert_eq!(
        (&told["steps"], &told["tokens"]),
        (&16.into(), &(16 * 8 * 32).into())
    );
    assert_eq!(told["state_bytes"], parameters * 4 * 5);
    for key in [
        "peak_memory_bytes",
        "seconds_per_step",
        "tokens_per_second",
        "seconds",
    ] {
        assert!(told[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let told = success(scratch.pretrain("run", &["--dry-run"]));
    let lines = String::from_utf8(told.stderr).unwrap();
    assert!(
        lines.contains("16 steps of 8 sequences of 32 tokens"),
        "{lines}"
    );
    assert!(String::from_utf8(told.stdout).unwrap().contains("a step"));
}

#[test]
fn continues_from_existing_model() {
    let scratch = Scratch::new();
    let from = |output: &str, model: &str, more: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
        command
            .args([
                "pretrain",
                "--iters",
                "2",
                "--steps-per-eval",
                "1",
                "--quiet",
            ])
            .args(["--batch-size", "4", "--max-seq-length", "32", "--data"])
            .arg(scratch.path("train.jsonl"))
            .arg("--valid")
            .arg(scratch.path("valid.jsonl"))
            .arg("--start-from")
            .arg(model)
            .arg("--output")
            .arg(scratch.path(output))
            .args(more)
            .stdin(Stdio::null());
        command
    };
    // From weights that already know English, and from them once more.
    success(from(
        "first",
        tales().to_str().unwrap(),
        &["--learning-rate", "0"],
    ));
    let untrained = losses(&scratch.path("first"), "val_loss");
    assert!(untrained[0] < 6.0, "{untrained:?}");
    assert_eq!(
        untrained[0], untrained[1],
        "nothing was learnt at a rate of 0"
    );
    let config = fs::read_to_string(scratch.path("first/model/config.json")).unwrap();
    assert!(config.contains("\"float32\""), "{config}");
    let model = scratch.path("first/model");
    let model = model.to_str().unwrap();
    success(from(
        "second",
        model,
        &["--learning-rate", "1e-3", "--warmup", "0"],
    ));
    let trained = losses(&scratch.path("second"), "val_loss");
    assert!(trained[1] < untrained[0], "{trained:?} after {untrained:?}");

    // What was interrupted needs the model no more.
    fs::remove_file(scratch.path("first/model/model.safetensors")).unwrap();
    let again = ["--learning-rate", "1e-3", "--warmup", "0", "--resume"];
    success(from("second", model, &again));

    let told = failure(
        from("none", tales().to_str().unwrap(), &["--head-dim", "32"]),
        2,
    );
    assert!(told.contains("leave out [model]"), "{told}");
    let told = failure(from("none", "nowhere", &[]), 1);
    assert!(told.contains("nowhere"), "{told}");
    assert!(!scratch.path("none").exists(), "nothing was begun");
}

#[test]
fn rejects_invalid_options_and_data() {
    let scratch = Scratch::new();
    let wrong = |more: &[&str], code: i32| failure(scratch.pretrain("none", more), code);
    for (more, code, problem) in [
        (&["--vocab-size", "100"][..], 1, "100"),
        (
            &["--model-dim", "0"],
            1,
            "`model_dim`: expected an integer from 1",
        ),
        (&["--preset", "7B"], 2, "expected 270M"),
        (
            &["--learning-rate=-1"],
            2,
            "--learning-rate: expected 0 or more",
        ),
        (&["--dtype", "float16"], 1, "gradients vanish"),
        (
            &["--average-last", "9"],
            2,
            "--average-last: expected at most 3",
        ),
        (&["--data", "nowhere.jsonl"], 1, "nowhere.jsonl"),
        (&["--tokenizer", "nowhere"], 1, "nowhere"),
        (&["--processes", "0"], 2, "--processes: expected at least 1"),
    ] {
        let told = wrong(more, code);
        assert!(told.contains(problem), "{more:?}: {told}");
        assert!(
            !scratch.path("none").exists(),
            "nothing was begun: {more:?}"
        );
    }
    fs::write(
        scratch.path("bad.toml"),
        "iters = 3\n[model]\nmodel_width = 2\n",
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
    command.arg("pretrain").arg(scratch.path("bad.toml"));
    let told = failure(command, 1);
    assert!(
        told.contains("line 3") && told.contains("`model_width`"),
        "{told}"
    );

    success(scratch.pretrain("run", &["--quiet", "--iters", "2"]));
    let told = failure(scratch.pretrain("run", &["--iters", "2"]), 1);
    assert!(told.contains("there is a run here already"), "{told}");
    let other = ["--iters", "2", "--resume", "--quiet", "--model-dim", "128"];
    let told = failure(scratch.pretrain("run", &other), 1);
    assert!(
        told.contains("--model-dim: expected 64, found 128"),
        "{told}"
    );
    let more = ["--iters", "3", "--resume", "--quiet"];
    let told = failure(scratch.pretrain("run", &more), 1);
    assert!(
        told.contains("schedule_steps: expected 2, found 3"),
        "{told}"
    );
}
