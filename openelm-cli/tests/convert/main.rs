//! `openelm convert` as a process: output, exit codes, and its files after a kill, an interrupt or
//! a full disk.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

#[cfg(unix)]
mod cancelled;
mod command;
#[path = "../cli/tool.rs"]
#[expect(dead_code, reason = "shared with the tests of other commands")]
mod tool;

use std::fs;

use openelm_testing::{TempDir, fails, run};
use serde_json::{Value, json};

use command::{convert, works};
use tool::{openelm, tales};

#[test]
fn help_shows_examples_and_options() {
    let help = works(convert(&["--help"]));
    for line in [
        "openelm convert OpenELM-270M OpenELM-270M-4bit -q --tokenizer Llama-2-7b-hf",
        "openelm convert OpenELM-270M OpenELM-270M.gguf --gguf-type q8_0",
        "openelm convert OpenELM-270M --dry-run -q",
    ] {
        assert!(help.contains(line), "{help}");
    }
    for option in [
        "--q-recipe",
        "--architecture",
        "--max-shard-size",
        "--force",
    ] {
        assert!(help.contains(option), "{option}");
    }
}

#[test]
fn quantized_model_generates() {
    let folder = TempDir::new();
    let target = folder.at("tales-4bit");
    let report = works(convert(&[&tales(), &target, "-q"]));
    for part in [
        "source      Hugging Face folder, 4.99 MB\n",
        "1.41 MB in 100 tensors, 4.51 bits per weight",
        "25 identical, 25 quantised",
        "on 64 tokens of English text",
    ] {
        assert!(report.contains(part), "{part} | {report}");
    }
    assert_eq!(folder.names(), ["tales-4bit"]);
    let generate = |extra: &[&str]| {
        let args = [
            "generate",
            "-m",
            &target,
            "-p",
            "Once upon a time",
            "-n",
            "8",
            "-q",
        ];
        works(openelm(&[&args[..], extra].concat()))
    };
    let expected = " there lived a little girl who had been\n";
    assert_eq!(generate(&["--keep-quantized"]), expected);
    assert_eq!(generate(&[]), expected);
    let info = works(openelm(&["info", &target]));
    assert!(info.contains("2,497,344"), "{info}");
    fails(convert(&[&tales(), &target]), 1, &[&target, "--force"]);
    assert_eq!(
        works(convert(&[&tales(), &target, "--force", "--quiet"])),
        ""
    );
}

#[test]
fn writes_json_reports() {
    let folder = TempDir::new();
    let target = folder.at("tales.gguf");
    let json = works(convert(&[
        &tales(),
        &target,
        "--json",
        "--gguf-type",
        "q8_0",
    ]));
    assert_eq!(json.lines().count(), 1);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        (&json["format"], &json["target"]),
        (&json!("gguf"), &json!(target))
    );
    assert_eq!(json["parameters"], 2_497_344);
    let checks = &json["verification"]["tensors"];
    let sum: u64 = ["identical", "rounded", "quantized"]
        .iter()
        .map(|key| checks[key].as_u64().unwrap())
        .sum();
    assert_eq!(sum, 50);
    assert!(json["verification"]["top1_agreement"].as_f64().unwrap() > 0.9);
    assert_eq!(folder.names(), ["tales.gguf"]);
    // Back to the source's format, without verification.
    let back = folder.at("back");
    let json = works(convert(&[&target, &back, "--json", "--verify", "none"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["verification"], Value::Null);
    assert!(folder.join("back/tokenizer.json").is_file());
}

#[test]
fn dry_runs_write_nothing() {
    let folder = TempDir::new();
    let target = folder.at("target");
    let json = works(convert(&[&tales(), "--dry-run", "-q", "--json"]));
    let json: Value = serde_json::from_str(&json).unwrap();
    let tensors = json["tensors"].as_array().unwrap();
    assert_eq!(tensors.len(), 100);
    let sum: u64 = tensors
        .iter()
        .map(|tensor| tensor["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(json["bytes"], sum);
    let table = works(convert(&[&tales(), &target, "--dry-run", "-q"]));
    assert_eq!(table.lines().count(), 101);
    assert!(
        table.contains("become 1.41 MB in 100 tensors, 4.51 bits per weight"),
        "{table}"
    );
    assert!(folder.names().is_empty());
    works(convert(&[&tales(), &target, "-q", "--quiet"]));
    let report = fs::read(folder.join("target/convert-report.json")).unwrap();
    let report: Value = serde_json::from_slice(&report).unwrap();
    assert_eq!(report["bytes"], sum);
    // A dry run accepts an existing target.
    works(convert(&[&tales(), &target, "--dry-run"]));
}

#[test]
fn exit_codes_separate_usage_from_failure() {
    let folder = TempDir::new();
    let target = folder.at("target");
    let source = tales();
    for (args, part) in [
        (&["-q", "--q-bits", "7"][..], "bits"),
        (&["-q", "--q-group-size", "48"], "--q-group-size"),
        (&["-q", "--q-mode", "int8"], "int8"),
        (&["-q", "--q-recipe", "mixed_9_9"], "mixed_9_9"),
        (&["-q", "--q-layer", "ffn"], "REGEX=BITS"),
        (&["-q", "--q-layer", "(=4"], "("),
        (&["-q", "--q-layer", "ffn=7"], "--q-layer"),
        (
            &["-q", "--q-layer", "nothing=6"],
            "--q-layer: `nothing` matches no matrix",
        ),
        (&["-q", "--to", "hf"], "quantize"),
        (
            &["-q", "--to", "gguf"],
            "--quantize: not for GGUF; use --gguf-type",
        ),
        (
            &["--to", "gguf", "--dtype", "float16"],
            "--dtype: not for GGUF; use --gguf-type",
        ),
        (&["--gguf-type", "q8_0"], "TARGET does not end in .gguf"),
        (&["--to", "hf", "--gguf-type", "f16"], "--gguf-type"),
        (&["--to", "onnx"], "onnx"),
        (&["--gguf-type", "q2_k"], "q2_k"),
        (&["--architecture", "7B"], "7B"),
        (&["--max-shard-size", "0"], "0"),
        (&["--verify", "perhaps"], "perhaps"),
    ] {
        let mut all = vec![source.as_str(), target.as_str()];
        all.extend(args);
        fails(convert(&all), 2, &[part]);
    }
    for args in [
        &["-q", "-d"][..],
        &["--q-bits", "4"],
        &["-q", "--q-bits", "4", "--q-recipe", "mixed_4_6"],
        &["--tokenizer", "x", "--no-tokenizer"],
    ] {
        let mut all = vec![source.as_str(), target.as_str()];
        all.extend(args);
        let outcome = run(convert(&all));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
    }
    assert_eq!(run(convert(&[&source])).code, Some(2));
    fails(
        convert(&[&folder.at("none"), &target]),
        1,
        &["none", "no such file or folder"],
    );
    folder.write("letter", "x");
    let inside = folder.at("letter/target");
    fails(convert(&[&source, &inside]), 1, &["letter: not a folder"]);
    fs::remove_file(folder.join("letter")).unwrap();
    fails(
        convert(&[&source, &target, "--tokenizer", &folder.at("t")]),
        1,
        &["no such file or folder", "a folder with one"],
    );
    fails(convert(&[&source, &source, "--force"]), 1, &["the same"]);
    assert!(folder.names().is_empty());
}
