//! Events, plots, models and errors.

use std::{
    fs,
    process::{Command, Stdio},
};

use openelm_testing::{failure, repository, success, tales};
use serde_json::Value;

use crate::folder::{Scratch, losses};

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
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    // By hand: the embedding 2048·64; qkv 64·64 and 128·64 of 1 and 2 KV heads; out 64·32 and
    // 64·64; the FFN 3·64·32 and 3·64·256; norms 64·(4 + 1) and 16·4.
    let parameters = 131_072 + 64 * 64 + 128 * 64 + 64 * 32 + 64 * 64 + 192 * (32 + 256) + 384;
    assert_eq!(report["parameters"], parameters);
    assert_eq!(
        (&report["steps"], &report["tokens"]),
        (&16.into(), &(16 * 8 * 32).into())
    );
    assert_eq!(report["state_bytes"], parameters * 4 * 5);
    for key in [
        "peak_memory_bytes",
        "seconds_per_step",
        "tokens_per_second",
        "seconds",
    ] {
        assert!(report[key].as_f64().unwrap() > 0.0, "{key}");
    }
    let output = success(scratch.pretrain("run", &["--dry-run"]));
    let lines = String::from_utf8(output.stderr).unwrap();
    assert!(
        lines.contains("16 steps of 8 sequences of 32 tokens"),
        "{lines}"
    );
    assert!(
        String::from_utf8(output.stdout)
            .unwrap()
            .contains("per step")
    );
}

/// Apple's recipes of 4 million tokens per update, with a model of two layers and short sequences.
#[test]
fn dry_run_of_recipes_measures_a_part_of_an_update() {
    let scratch = Scratch::new();
    let data = scratch.path("train.jsonl");
    for size in ["270M", "450M", "1.1B", "3B"] {
        for processes in [1, 128] {
            let recipe = repository(&format!("recipes/pretrain-{size}.toml"));
            let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
            command.args(["pretrain", "--dry-run", "--json", "--config"]);
            command.arg(recipe).arg("--data").arg(&data);
            command.arg("--tokenizer").arg(tales());
            command.args(["--max-seq-length", "16", "--min-tokens", "4"]);
            command.args(["--min-characters", "0", "--processes"]);
            command.arg(processes.to_string());
            command.args(["--num-transformer-layers", "2", "--model-dim", "64"]);
            command.args(["--head-dim", "16", "--ffn-dim-divisor", "32"]);
            command.args(["--vocab-size", "4096", "--max-context-length", "64"]);
            command.env("OPENBLAS_NUM_THREADS", "1");
            command.stdin(Stdio::null());
            let output = success(command);
            let report: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(report["tokens_per_step"], 2048 * 16, "{size}");
            assert_eq!(report["tokens"], 350_000_u64 * 2048 * 16);
            assert_eq!(
                (&report["steps"], &report["processes"]),
                (&350_000.into(), &processes.into())
            );
            let number = |key: &str| report[key].as_f64().unwrap();
            let step = number("seconds_per_step");
            assert!(step > 0.0 && number("peak_memory_bytes") > 0.0);
            assert!((number("seconds") / step - 350_000.0).abs() < 1.0);
            // 2,048 sequences, of which a few tokens at the end are no targets.
            let targets = number("tokens_per_second") * step;
            assert!(
                (0.9..=1.0).contains(&(targets / (2048.0 * 16.0))),
                "{targets}"
            );
        }
    }
}

/// A page of two values that declares 1,000: the library panics on it.
#[test]
fn panics_of_a_reader_are_errors() {
    const PARQUET: &[u8] = b"PAR1\x15\0\x15\"\x15\",\x15\xd0\x0f\x15\0\x15\x06\x15\x06\0\0\
        \x04\0\0\0once\x05\0\0\0twice\x15\x02\x19,H\x06schema\x15\x02\0\x15\x0c%\0\x18\x04text\
        %\0\0\x16\xd0\x0f\x19\x1c\x19\x1c&\x08\x1c\x15\x0c\x19\x15\0\x19\x18\x04text\x15\0\x16\xd0\x0f\
        \x16F\x16F&\x08\0\0\x16F\x16\xd0\x0f\0\0F\0\0\0PAR1";
    let scratch = Scratch::new();
    let data = scratch.0.file("corpus.parquet", PARQUET);
    let problem = failure(scratch.pretrain("none", &["--data", &data]), 1);
    assert!(problem.contains("not a valid parquet file"), "{problem}");
    assert!(!problem.contains("panicked"), "{problem}");
    assert!(!scratch.path("none").exists());
}

#[test]
fn rejects_invalid_options_and_data() {
    let scratch = Scratch::new();
    let wrong = |more: &[&str], code: i32| failure(scratch.pretrain("none", more), code);
    for (more, code, problem) in [
        (&["--vocab-size", "100"][..], 1, "100"),
        (
            &["--model-dim", "0"],
            2,
            "--model-dim: expected an integer from 1",
        ),
        (&["--preset", "7B"], 2, "expected 270M"),
        (
            &["--learning-rate=-1"],
            2,
            "--learning-rate: expected a number from 0",
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
        (
            &["--processes", "99999", "--batch-size", "99999"],
            2,
            "--processes: expected at most 256, found 99999",
        ),
        (
            &["--processes", "3"],
            2,
            "openelm: --batch-size: expected a multiple of 3",
        ),
        (
            &["--processes", "2", "--process-timeout", "0"],
            2,
            "--process-timeout: expected at least 1, found 0",
        ),
        (
            &["--processes", "5000000000"],
            2,
            "--processes: expected at most 8",
        ),
        (
            &["--batch-size", "9223372036854775807"],
            2,
            "--batch-size: expected a size that fits",
        ),
        (
            &["--shuffle", "100000000000000"],
            2,
            "--shuffle: expected a size that fits",
        ),
        (
            &["--max-context-length", "9000000"],
            2,
            "--max-context-length: expected an integer",
        ),
        (
            &["--process-timeout", "9"],
            2,
            "--process-timeout: no effect with one process",
        ),
        (
            &["--max-seq-length", "4096"],
            2,
            "--max-seq-length: expected at most",
        ),
        (
            &["--preset", "270M"],
            2,
            "--preset: num_layers of the file's [model] would replace",
        ),
    ] {
        let message = wrong(more, code);
        assert!(message.contains(problem), "{more:?}: {message}");
        assert!(
            !scratch.path("none").exists(),
            "no run was started: {more:?}"
        );
    }
    fs::write(
        scratch.path("bad.toml"),
        "iters = 3\n[model]\nmodel_width = 2\n",
    )
    .unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
    command.arg("pretrain").arg(scratch.path("bad.toml"));
    let message = failure(command, 2);
    assert!(
        message.contains("line 3") && message.contains("`model_width`"),
        "{message}"
    );

    success(scratch.pretrain("run", &["--quiet", "--iters", "2"]));
    let message = failure(scratch.pretrain("run", &["--iters", "2"]), 1);
    assert!(message.contains("there is a run here already"), "{message}");
    let other = ["--iters", "2", "--resume", "--quiet", "--model-dim", "128"];
    let message = failure(scratch.pretrain("run", &other), 1);
    assert!(
        message.contains("--model-dim: expected 64, found 128"),
        "{message}"
    );
    let more = ["--iters", "3", "--resume", "--quiet"];
    let message = failure(scratch.pretrain("run", &more), 1);
    assert!(
        message.contains("--iters: expected 2, found 3"),
        "{message}"
    );
}
