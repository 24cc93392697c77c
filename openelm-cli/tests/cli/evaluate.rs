//! `openelm evaluate`: table, files, continuation, comparison and refusals.

use std::{fs, path::Path};

use serde_json::{Value, json};

use crate::tool::{openelm, parse, tales};
use openelm_testing::{TempDir, fails, repository, run, works, write_tales};

fn text(path: impl AsRef<Path>) -> String {
    fs::read_to_string(path).unwrap()
}

/// `openelm evaluate` with the bundled model on the task of `examples/evaluate`.
fn endings(args: &[&str]) -> std::process::Command {
    let task = repository("examples/evaluate/endings.yaml");
    let data = repository("examples/evaluate");
    let [task, data] = [&task, &data].map(|path| path.to_str().unwrap());
    let model = tales();
    let fixed = [
        "evaluate", "-q", "--model", &model, "--task", task, "--data", data,
    ];
    openelm(&[&fixed, args].concat())
}

fn rows(file: &Path) -> Vec<Value> {
    text(file).lines().map(parse).collect()
}

#[test]
fn scores_are_printed_and_kept() {
    let folder = TempDir::new();
    let out = folder.join("out");
    let table = works(endings(&["--output-dir", out.to_str().unwrap()]));
    let json = parse(&works(endings(&["--json"])));
    let kept: Value = serde_json::from_str(&text(out.join("results.json"))).unwrap();
    assert_eq!(kept["results"], json["results"]);
    let scores = &kept["results"]["endings"];
    let acc = scores["acc,none"].as_f64().unwrap();
    assert!(acc > 0.5, "{acc}");
    assert_eq!(kept["n-samples"]["endings"]["effective"], 12);
    assert_eq!(kept["n-shot"]["endings"], 0);
    assert!(table.contains(&format!("acc       {acc:.4}")), "{table}");

    let samples = rows(&out.join("samples_endings.jsonl"));
    assert_eq!(samples.len(), 12);
    let mean = samples
        .iter()
        .map(|row| row["acc"].as_f64().unwrap())
        .sum::<f64>()
        / 12.0;
    assert!((mean - acc).abs() < 1e-9);
    let first = &samples[0];
    assert_eq!(first["doc_id"], 0);
    let argument = &first["arguments"]["gen_args_0"];
    assert!(
        argument["arg_0"]
            .as_str()
            .unwrap()
            .starts_with("Once upon a time")
    );
    assert!(argument["arg_1"].as_str().unwrap().starts_with(' '));
    // The right choice of the row has the highest log-likelihood if the row counts.
    for row in &samples {
        let sums = row["filtered_resps"].as_array().unwrap().iter();
        let sums: Vec<f64> = sums
            .map(|r| r[0].as_str().unwrap().parse().unwrap())
            .collect();
        let best = (0..3).max_by(|&a, &b| sums[a].total_cmp(&sums[b])).unwrap();
        let is_right = row["target"].as_str() == Some(best.to_string().as_str());
        assert_eq!(row["acc"], f64::from(u8::from(is_right)));
    }
    for picture in ["comparison.svg", "comparison.png"] {
        assert!(out.join(picture).is_file(), "{picture}");
    }
}

#[test]
fn an_interrupted_evaluation_goes_on() {
    let folder = TempDir::new();
    let out = folder.join("out");
    let args = ["--output-dir", out.to_str().unwrap()];
    let table = works(endings(&args));
    let path = out.join("samples_endings.jsonl");
    let whole = text(&path);
    let lines: Vec<_> = whole.lines().collect();
    // Five rows, of which one has another score, and the beginning of a row.
    let changed = lines[0].replace("\"False\"", "\"True\"");
    assert_ne!(changed, lines[0]);
    let kept = [&[changed.as_str()], &lines[1..5], &[&lines[5][..40]]].concat();
    fs::write(&path, kept.join("\n")).unwrap();
    assert_eq!(works(endings(&args)), table);
    let again = text(&path);
    // The scores of the first rows were not computed again.
    assert!(again.starts_with(&[&changed, "\n", &lines[1..5].join("\n"), "\n"].concat()));
    // Sums of other batches differ in the last bits.
    for (row, before) in std::iter::zip(rows(&path), lines.into_iter().map(parse)) {
        assert_eq!(row["arguments"], before["arguments"]);
        assert_eq!(row["acc"], before["acc"]);
        for choice in 0..3 {
            let sum = |row: &Value| -> f64 {
                let sum = row["filtered_resps"][choice][0].as_str().unwrap();
                sum.parse().unwrap()
            };
            assert!((sum(&row) - sum(&before)).abs() < 1e-4, "{row}");
        }
    }
    assert_eq!(rows(&path).len(), 12);
    // No row is removed.
    let fewer = [&args[..], &["--limit", "3"]].concat();
    let expected = "the file has the rows of more than 3 questions; a smaller --limit needs";
    fails(endings(&fewer), 1, &[expected]);
    assert_eq!(text(&path), again);
}

#[test]
fn a_folder_has_the_scores_of_one_model() {
    let folder = TempDir::new();
    let out = folder.join("out");
    let args = ["--limit", "2", "--output-dir", out.to_str().unwrap()];
    works(endings(&args));
    let before = text(out.join("samples_endings.jsonl"));
    let other_dtype = endings(&[&args[..], &["--dtype", "bfloat16"]].concat());
    let parts = ["(model_fingerprint: expected", "choose another folder"];
    fails(other_dtype, 1, &parts);
    assert_eq!(text(out.join("samples_endings.jsonl")), before);
    // Rows of other questions.
    let other = before.replace("Once upon", "Twice upon");
    fs::write(out.join("samples_endings.jsonl"), &other).unwrap();
    fails(
        endings(&args),
        1,
        &["line 1: expected the scores of document 0 with the same requests"],
    );
    assert_eq!(text(out.join("samples_endings.jsonl")), other);
    // A folder of something else.
    let full = folder.join("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("letter.txt"), "hello").unwrap();
    let into_full = endings(&["--output-dir", full.to_str().unwrap()]);
    fails(into_full, 1, &["the folder has other files"]);
}

#[test]
fn a_model_equals_itself() {
    let folder = TempDir::new();
    let text = folder.file(
        "tale.txt",
        "Once upon a time there was a king who had three sons.\n",
    );
    let model = tales();
    let other = folder.file("other.txt", "The wolf came to the door.\n");
    let texts = format!("{text},{other}");
    let args = ["--against", &model, "--perplexity", &texts, "--json"];
    let json = parse(&works(endings(&args)));
    let differences = &json["comparison"]["differences"];
    assert_eq!(differences["endings"]["acc"]["difference"], 0.0);
    assert_eq!(differences["endings"]["acc"]["low"], 0.0);
    let perplexity = &json["perplexity"];
    assert!(perplexity["kl_divergence"].as_f64().unwrap().abs() < 1e-9);
    assert_eq!(perplexity["same_top_token"], 1.0);
    let nats = perplexity["nats_per_token"].as_f64().unwrap();
    let exponential = perplexity["perplexity"].as_f64().unwrap();
    assert!((nats.exp() - exponential).abs() < 1e-9);
    let bytes = perplexity["bytes"].as_u64().unwrap();
    assert_eq!(bytes, 54 + 27);
    let nats = &differences["2 texts"]["nats_per_token"];
    assert_eq!(
        (&nats["difference"], &nats["low"]),
        (&0.0.into(), &0.0.into())
    );
}

#[test]
fn examples_of_the_questions_own_split_are_noted() {
    let task = repository("examples/evaluate/endings.yaml");
    let data = repository("examples/evaluate");
    let [task, data] = [&task, &data].map(|path| path.to_str().unwrap());
    let evaluate = |shots: &str| {
        let model = tales();
        let fixed = [
            "evaluate", "--model", &model, "--task", task, "--data", data,
        ];
        run(openelm(&[&fixed[..], &["--num-shots", shots]].concat())).stderr
    };
    let note = "endings: a question can be among its own examples, as in lm-eval";
    assert!(evaluate("2").contains(note), "{}", evaluate("2"));
    assert!(!evaluate("0").contains(note));
}

#[test]
fn bad_command_lines_are_refused() {
    let folder = TempDir::new();
    let model = tales();
    let evaluate = |args: &[&str]| {
        let fixed = ["evaluate", "--model", &model];
        openelm(&[&fixed, args].concat())
    };
    let data = folder.to_str().unwrap();
    let cases: [(&[&str], i32, &str); 6] = [
        (&[], 2, "--tasks: expected tasks"),
        (
            &["--tasks", "arc_easy"],
            1,
            "allenai/ai2_arc: not in the cache",
        ),
        (&["--tasks", "arc_eazy", "--data", data], 2, "arc_easy"),
        (
            &["--tasks", "arc_easy", "--data", data],
            1,
            "allenai/ai2_arc",
        ),
        (
            &["--perplexity", "x.txt", "--limit", "3"],
            2,
            "--limit: no effect",
        ),
        (
            &["--tasks", "piqa", "--data", data, "--stride", "3"],
            2,
            "--stride: no effect",
        ),
    ];
    for (args, code, expected) in cases {
        fails(evaluate(args), code, &[expected]);
    }
    let none = endings(&["--limit", "0"]);
    fails(none, 2, &["--limit: expected at least 1, found 0"]);
}

/// A folder of data sets with these rows of the task of `examples/evaluate`.
fn data_set(folder: &TempDir, rows: &[Value]) -> String {
    fs::create_dir_all(folder.join("data/endings")).unwrap();
    let lines: Vec<_> = rows.iter().map(|row| format!("{row}\n")).collect();
    folder.write("data/endings/test.jsonl", lines.concat());
    folder.join("data").to_str().unwrap().to_owned()
}

/// `openelm evaluate` on the task file `task` and the data sets of `data`.
fn evaluate(task: &str, data: &str, args: &[&str]) -> std::process::Command {
    let model = tales();
    let fixed = [
        "evaluate", "-q", "--model", &model, "--task", task, "--data", data,
    ];
    openelm(&[&fixed, args].concat())
}

#[test]
fn truncated_contexts_are_counted() {
    let folder = TempDir::new();
    let row = |sentence: &str| json!({"sentence": sentence, "endings": ["a.", "b."], "right": 1});
    let long = "once upon a time ".repeat(600);
    let data = data_set(&folder, &[row("He was a"), row(&long)]);
    let task = repository("examples/evaluate/endings.yaml");
    let task = task.to_str().unwrap();
    let out = folder.join("out");
    let args = ["--output-dir", out.to_str().unwrap()];
    // The second run reads the rows of the first one.
    for _ in 0..2 {
        let outcome = run(evaluate(task, &data, &args));
        assert_eq!(outcome.code, Some(0), "{}", outcome.stderr);
        let note = "endings: 2 of 4 contexts are too long for the model";
        assert!(outcome.stderr.contains(note), "{}", outcome.stderr);
        assert_eq!(
            parse(&text(out.join("results.json")))["truncated"]["endings"],
            2
        );
        let rows = rows(&out.join("samples_endings.jsonl"));
        assert_eq!(rows[0]["truncated"], json!([0, 0]));
        assert!(rows[1]["truncated"][0].as_u64().unwrap() > 500);
    }
}

#[test]
fn errors_of_requests_name_file_and_document() {
    let folder = TempDir::new();
    let row = |ending: &str| json!({"sentence": "x", "endings": ["a", ending], "right": 1});
    let long = "once upon a time ".repeat(600);
    let task = text(repository("examples/evaluate/endings.yaml"));
    let task = folder.file("t.yaml", format!("{task}target_delimiter: \"\"\n"));
    for (ending, expected) in [
        (long.as_str(), "expected at most the 512 tokens"),
        ("", "continuation: it is empty"),
    ] {
        let data = data_set(&folder, &[row("b"), row(ending)]);
        let place = "test.jsonl: document 2: request 2: ";
        fails(evaluate(&task, &data, &[]), 1, &[place, expected]);
    }
}

#[test]
fn names_of_tasks_are_names_of_files() {
    let folder = TempDir::new();
    let task = text(repository("examples/evaluate/endings.yaml"));
    let long = "e".repeat(300);
    for name in ["../evil", "/evil", "", long.as_str(), "a\\0b"] {
        let definition = task.replace("task: endings", &format!("task: \"{name}\""));
        let file = folder.file("t.yaml", &definition);
        let parts = ["t.yaml: `task`: expected 1 to 200 bytes"];
        fails(evaluate(&file, folder.to_str().unwrap(), &[]), 1, &parts);
    }
}

#[test]
fn faults_are_found_before_the_first_score() {
    let folder = TempDir::new();
    let out = folder.join("out");
    let file = folder.file("file.txt", "");
    let bad = folder.file("bad.jsonl", "{\"text\": 5}\n");
    let missing = folder.join("missing");
    let missing = missing.to_str().unwrap();
    let model = tales();
    let task = repository("examples/evaluate/endings.yaml");
    let data = repository("examples/evaluate");
    let [task, data] = [&task, &data].map(|path| path.to_str().unwrap());
    let cases: [(&str, &[&str], &str); 5] = [
        (data, &["--perplexity", missing], "missing: no such file"),
        (data, &["--perplexity", &bad], "bad.jsonl:1: `text`"),
        (data, &["--against", missing], "missing: no such file"),
        (
            data,
            &["--against", &model, "--against-adapter", missing],
            "missing: no such file",
        ),
        (&file, &[], "file.txt: expected a folder of data sets"),
    ];
    for (data, args, expected) in cases {
        let args = [args, &["--output-dir", out.to_str().unwrap()]].concat();
        fails(evaluate(task, data, &args), 1, &[expected]);
        assert!(!out.exists(), "{expected}");
    }
    let into_file = endings(&["--output-dir", &file]);
    fails(into_file, 1, &["file.txt: expected a folder, found a file"]);
    let empty = ["evaluate", "--model", &model, "--perplexity", &file];
    fails(
        openelm(&empty),
        2,
        &["--perplexity: expected text in ", "file.txt, found none"],
    );
}

#[test]
fn a_score_of_nan_names_the_model() {
    let folder = TempDir::new();
    let other = folder.join("other");
    fs::create_dir(&other).unwrap();
    let tensor = "transformer.layers.0.attn.k_norm.weight";
    write_tales(&other, &[(tensor, 0, f32::NAN)]);
    let command = endings(&["--against", other.to_str().unwrap()]);
    fails(command, 1, &["other: layer 0 computes NaN", tensor]);
}
