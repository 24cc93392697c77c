//! Extreme values of every numeric option: no panic, no signal, no endless run, and a message that
//! names the flag.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::{
    fs,
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use openelm_core::{Config, config::LayerWiseConfig};
use openelm_testing::{TempDir, tales, works, write_zeros};

/// Longest time of a command, which the debug build and busy machines need in part.
const PATIENCE: Duration = Duration::from_secs(60);

/// Values at and beyond the limits of numbers.
const VALUES: [&str; 18] = [
    "0",
    "-1",
    "1",
    "65535",
    "2147483647",
    "2147483648",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "9223372036854775808",
    "18446744073709551615",
    "18446744073709551616",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "1e39",
    "1e-45",
];

/// Help names of numbers.
const NUMBERS: [&str; 11] = [
    "N", "N,N", "X", "X,X", "P", "K", "R", "T", "PART", "SECONDS", "SIZE",
];

/// Options and values with which a run is long by request, and not refused.
fn is_long(command: &str, option: &str, value: &str) -> bool {
    let is_count = value.parse::<u64>().is_ok_and(|count| count >= 65535);
    match option {
        "--iters" => command != "pretrain --dry-run" && is_count,
        "--repeat" => is_count,
        // These fit into memory.
        "--batch-size" | "--shuffle" | "--vocab-size" | "--micro-batch-size" => value == "65535",
        _ => false,
    }
}

struct Scratch(TempDir);

impl Scratch {
    fn new() -> Self {
        let folder = TempDir::new();
        let rows = |count: usize| -> String {
            let row = |i: usize| format!("{{\"text\": \"The fox had {i} apples and pears.\"}}\n");
            (0..count).map(row).collect()
        };
        folder.write("data/train.jsonl", rows(40));
        folder.write("data/valid.jsonl", rows(4));
        folder.write("data/test.jsonl", rows(4));
        let settings = LayerWiseConfig {
            model_dim: 16,
            num_transformer_layers: 2,
            head_dim: 8,
            num_gqa_groups: Some(1),
            ffn_dim_divisor: 8,
            vocab_size: 2048,
            max_context_length: 64,
            ..LayerWiseConfig::default()
        };
        let config = Config::layer_wise(settings).unwrap();
        fs::create_dir(folder.join("model")).unwrap();
        write_zeros(&folder.join("model"), &config.to_json(), &config.tensors());
        for name in ["tokenizer.json", "tokenizer_config.json"] {
            fs::copy(tales().join(name), folder.join("model").join(name)).unwrap();
        }
        Self(folder)
    }

    /// A command that works, without an output folder.
    fn arguments(&self, command: &str) -> Vec<String> {
        let at = |name: &str| self.0.at(name);
        let model = at("model");
        let pretrain = [
            "--iters=1",
            "--batch-size=2",
            "--max-seq-length=16",
            "--max-context-length=64",
            "--num-transformer-layers=2",
            "--model-dim=16",
            "--head-dim=8",
            "--num-gqa-groups=1",
            "--ffn-dim-divisor=8",
            "--shuffle=4",
            "--quiet",
        ];
        let pretrain = || {
            let mut all: Vec<String> = pretrain.map(str::to_owned).to_vec();
            all.push(format!("--data={}", at("data/train.jsonl")));
            all.push(format!("--valid={}", at("data/valid.jsonl")));
            all.push(format!("--tokenizer={model}"));
            all
        };
        let words = |words: &[&str]| words.iter().map(|&word| word.to_owned()).collect();
        let mut arguments: Vec<String> = words(&command.split(' ').collect::<Vec<_>>());
        arguments.extend(match command {
            "generate" => words(&["--model", &model, "--prompt=The", "-n", "2", "--json", "-q"]),
            "bench" => words(&[
                "--model",
                &model,
                "--prompt-tokens=4",
                "-n",
                "2",
                "--repeat=1",
            ]),
            "convert" => words(&[&model, "--dry-run", "--quantize", "--q-group-size=32"]),
            "finetune" => words(&[
                "--model",
                &model,
                "--data",
                &at("data"),
                "--iters=1",
                "--batch-size=2",
                "--quiet",
            ]),
            "score" => words(&["--model", &model, "--jsonl", &at("data/valid.jsonl"), "-q"]),
            "tokenizer train" => words(&["--data", &at("data/train.jsonl"), "--vocab-size=280"]),
            _ => pretrain(),
        });
        arguments
    }

    /// Runs `command` with `--option=value`, in a TOML file if `in_file` is true, and returns a
    /// description of a fault.
    fn fault(&self, command: &str, option: &str, value: &str, in_file: bool) -> Option<String> {
        let mut arguments = self.arguments(command);
        let given = format!("{option}=");
        arguments.retain(|argument| !argument.starts_with(&given));
        if ["--max-tokens", "-n"].contains(&option) {
            arguments.retain(|argument| !["-n", "2"].contains(&argument.as_str()));
        }
        let output = TempDir::new();
        let key = option.trim_start_matches('-');
        if in_file {
            let file = output.file("run.toml", format!("{key} = {value}\n"));
            arguments.push(format!("--config={file}"));
        } else {
            arguments.push(format!("{option}={value}"));
        }
        // Options that have an effect only beside another.
        match option {
            "--beta" => return None,
            "--lr-end" => arguments.push("--lr-schedule=linear".to_owned()),
            "--q-bits" | "--q-group-size" => {}
            "--process-timeout" => arguments.push("--processes=2".to_owned()),
            _ => {}
        }
        match command {
            "finetune" => arguments.push(format!("--adapter-path={}", output.at("run"))),
            "tokenizer train" | "pretrain" => {
                arguments.push(format!("--output={}", output.at("run")));
            }
            _ => {}
        }
        let child = Command::new(env!("CARGO_BIN_EXE_openelm"))
            .args(&arguments)
            .env("OPENBLAS_NUM_THREADS", "1")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let shown = format!("{command} {option}={value}");
        let Some(code) = end(child) else {
            return Some(format!("{shown}: no end"));
        };
        let (code, stderr) = code;
        // Some values are refused only beside others.
        let other = match option {
            "--character-coverage" => "--vocab-size",
            "--model-dim" => "--qkv-multipliers",
            "--max-context-length" => "--max-seq-length",
            _ => option,
        };
        let is_named = code != Some(2)
            || stderr.contains(option)
            || stderr.contains(other)
            || in_file && stderr.contains("run.toml: ") && stderr.contains(&format!("{key}: "));
        let is_fault = !matches!(code, Some(0..=2)) || stderr.contains("panicked") || !is_named;
        is_fault.then(|| format!("{shown}: {code:?} {stderr}"))
    }
}

/// The exit code and the standard error; `None` if the command does not end.
fn end(mut child: Child) -> Option<(Option<i32>, String)> {
    let started = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if started.elapsed() > PATIENCE {
            child.kill().unwrap();
            child.wait().unwrap();
            return None;
        }
        thread::sleep(Duration::from_millis(5));
    }
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    Some((output.status.code(), stderr))
}

/// The numeric options of `command`, by its help.
fn numeric_options(command: &str) -> Vec<String> {
    let words = command.split(' ').filter(|word| *word != "--dry-run");
    let words: Vec<&str> = words.chain(["--help"]).collect();
    let help = works(openelm_testing::command(
        env!("CARGO_BIN_EXE_openelm"),
        &words,
    ));
    let options = help.lines().filter_map(|line| {
        let (_, rest) = line.trim_start().split_once("--")?;
        let (name, value) = rest.split_once(" <")?;
        let (value, _) = value.split_once('>')?;
        let is_name = name.chars().all(|c| c.is_ascii_lowercase() || c == '-');
        (is_name && NUMBERS.contains(&value)).then(|| format!("--{name}"))
    });
    options.collect()
}

fn check(command: &str, least: usize) {
    let scratch = Scratch::new();
    let options = numeric_options(command);
    assert!(options.len() >= least, "{command}: {options:?}");
    let mut cases = Vec::new();
    for option in &options {
        for value in VALUES {
            if !is_long(command, option, value) {
                cases.push((option, value));
            }
        }
    }
    assert_no_faults(&cases, |option, value| {
        scratch.fault(command, option, value, false)
    });
}

/// Values of options in a TOML file, without the table of the architecture.
fn check_file(command: &str, options: &[&str]) {
    let scratch = Scratch::new();
    let values = [
        "-1",
        "0",
        "9223372036854775807",
        "9223372036854775808",
        "nan",
        "1e308",
        "'x'",
    ];
    let options: Vec<String> = options.iter().map(|name| format!("--{name}")).collect();
    let cases: Vec<_> = options
        .iter()
        .flat_map(|option| values.map(|value| (option, value)))
        .collect();
    assert_no_faults(&cases, |option, value| {
        scratch.fault(command, option, value, true)
    });
}

fn assert_no_faults(
    cases: &[(&String, &str)],
    fault: impl Fn(&str, &str) -> Option<String> + Sync,
) {
    let fault = |&(option, value): &(&String, &str)| fault(option, value);
    let half = cases.len().div_ceil(2);
    let faults: Vec<String> = thread::scope(|scope| {
        let parts: Vec<_> = cases
            .chunks(half)
            .map(|part| scope.spawn(|| part.iter().filter_map(fault).collect::<Vec<_>>()))
            .collect();
        parts
            .into_iter()
            .flat_map(|part| part.join().unwrap())
            .collect()
    });
    assert!(faults.is_empty(), "{} faults: {faults:#?}", faults.len());
}

#[test]
fn generate_survives_extreme_numbers() {
    check("generate", 12);
}

#[test]
fn score_survives_extreme_numbers() {
    check("score", 2);
}

#[test]
fn bench_survives_extreme_numbers() {
    check("bench", 3);
}

#[test]
fn convert_survives_extreme_numbers() {
    check("convert", 3);
}

#[test]
fn finetune_survives_extreme_numbers() {
    check("finetune", 20);
}

#[test]
fn pretrain_survives_extreme_numbers() {
    check("pretrain", 30);
}

#[test]
fn dry_run_survives_extreme_numbers() {
    check("pretrain --dry-run", 30);
}

#[test]
fn files_of_finetune_survive_extreme_numbers() {
    let options = [
        "rank",
        "scale",
        "dropout",
        "num-layers",
        "batch-size",
        "max-seq-length",
        "learning-rate",
        "warmup",
        "grad-accumulation-steps",
        "clip-norm",
        "steps-per-eval",
        "val-batches",
        "steps-per-report",
        "save-every",
        "patience",
        "seed",
    ];
    check_file("finetune", &options);
}

#[test]
fn files_of_pretrain_survive_extreme_numbers() {
    let options = [
        "batch-size",
        "micro-batch-size",
        "max-seq-length",
        "words-per-fragment",
        "interleave",
        "shuffle",
        "epochs",
        "learning-rate",
        "ema-decay",
        "val-windows",
        "keep-checkpoints",
        "average-last",
        "processes",
    ];
    check_file("pretrain", &options);
}

#[test]
fn tokenizer_survives_extreme_numbers() {
    check("tokenizer train", 2);
}
