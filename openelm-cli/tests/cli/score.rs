//! `openelm score`.

use std::fs;

use openelm_testing::{TempDir, fails, run, works, write_tales};
use serde_json::Value;

use crate::tool::{openelm, parse, tales};

const ROWS: &str = r#"{"id": 1, "context": "Once upon a time", "continuation": " there lived a little girl"}

{"text": "Once upon a time there lived a little girl."}
{"context": "The queen", "continuation": " said"}
{"context": "Once upon a time", "continuation": " there was a queen", "id": null}
"#;

fn score(args: &[&str]) -> std::process::Command {
    let mut command = openelm(&["score", "--model", &tales()]);
    command.args(args);
    command
}

fn lines(output: &str) -> Vec<Value> {
    output.lines().map(parse).collect()
}

#[test]
fn results_have_the_order_of_the_rows() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", ROWS);
    let found = lines(&works(score(&["--jsonl", &file, "-q", "--token-logprobs"])));
    let number = |row: usize, key: &str| found[row][key].as_f64().unwrap();
    assert_eq!(found.len(), 4);
    assert_eq!(found[0]["id"], 1);
    assert_eq!(found[3]["id"], Value::Null);
    assert!(found[0].get("context").is_none() && found[1].get("text").is_none());
    assert_eq!((number(1, "bytes"), number(0, "truncated")), (43.0, 0.0));
    for row in &found {
        let logprobs = row["token_logprobs"].as_array().unwrap();
        let sum: f64 = logprobs.iter().map(|x| x.as_f64().unwrap()).sum();
        assert!((sum - row["logprob"].as_f64().unwrap()).abs() < 1e-9);
        assert_eq!(row["token_ids"].as_array().unwrap().len(), logprobs.len());
    }
    // The continuation is the part of the text before its end.
    let logprobs = found[1]["token_logprobs"].as_array().unwrap();
    let end = logprobs.len() - 1;
    let part = logprobs[end - number(0, "tokens") as usize..end].iter();
    let part: f64 = part.map(|x| x.as_f64().unwrap()).sum();
    assert!((number(0, "logprob") - part).abs() < 1e-4);
    assert!(number(0, "logprob") > number(3, "logprob"));
    assert_eq!(found[0]["is_greedy"], true);

    let mut piped = score(&["--jsonl", "-", "-q", "--token-logprobs"]);
    piped.stdin(fs::File::open(&file).unwrap());
    assert_eq!(lines(&works(piped)), found);
    // Statistics go to standard error.
    let mut piped = score(&[]);
    piped.stdin(fs::File::open(&file).unwrap());
    let outcome = run(piped);
    assert_eq!(outcome.stdout.lines().count(), 4);
    assert!(outcome.stderr.starts_with("[4 results] "), "{outcome:?}");
}

#[test]
fn windows_change_the_context_of_a_text() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", ROWS.lines().nth(2).unwrap());
    let of = |args: &[&str]| {
        let args = [&["--jsonl", &file, "-q"], args].concat();
        lines(&works(score(&args)))[0]["logprob"].as_f64().unwrap()
    };
    let (whole, short, strided) = (
        of(&[]),
        of(&["--window", "4"]),
        of(&["--window", "4", "--stride", "1"]),
    );
    assert_eq!(of(&["--window", "4", "--stride", "4"]), short);
    assert!(
        whole > strided && strided > short,
        "{whole} {strided} {short}"
    );
    for (args, expected) in [
        (
            &["--window", "0"][..],
            "--window: expected 1 to the model's context of 512, found 0",
        ),
        (
            &["--window", "4", "--stride", "5"],
            "--stride: expected 1 to the window of 4, found 5",
        ),
    ] {
        fails(score(&[&["--jsonl", &file], args].concat()), 2, &[expected]);
    }
}

#[test]
fn an_output_has_all_results() {
    let folder = TempDir::new();
    // Values are copied as they are written.
    let row = r#"{"id": 12345678901234567890123, "text": "The king", "a": [1.10, null]}"#;
    let file = folder.file("rows.jsonl", format!("{ROWS}{row}"));
    let output = folder.at("scores.jsonl");
    let args = ["--jsonl", &file, "-q"];
    let printed = works(score(&args));
    assert!(printed.contains(r#"{"id":12345678901234567890123,"a":[1.10,null],"logprob":-"#));
    fs::write(&output, "an older file").unwrap();
    assert_eq!(
        works(score(&[&args[..], &["--output", &output]].concat())),
        ""
    );
    assert_eq!(fs::read_to_string(&output).unwrap(), printed);
    for input in [&*file, &tales()] {
        let args = [&args[..], &["-o", input]].concat();
        fails(score(&args), 1, &[input, "choose another path"]);
    }
}

#[test]
fn a_malformed_row_is_named() {
    let folder = TempDir::new();
    for (row, part) in [
        ("{\"context\": \"a\"}", "`continuation` is missing"),
        ("{\"continuation\": \"a\"}", "`context` is missing"),
        ("{\"prompt\": \"a\"}", "`continuation` or `text` is missing"),
        (
            "{\"context\": 1, \"continuation\": \"b\"}",
            "`context`: expected a string",
        ),
        (
            "{\"context\": \"a\", \"continuation\": \"\"}",
            "`continuation` is empty",
        ),
        ("{\"text\": \"\"}", "`text` is empty"),
        ("{\"text\": \"a\", \"context\": \"b\"}", "found both"),
        (
            "{\"text\": \"a\", \"tokens\": 1}",
            "`tokens`: a key of the output",
        ),
        ("[]", "expected a JSON object, found a list"),
    ] {
        let file = folder.file("rows.jsonl", format!("{}\n{row}\n", ROWS.trim_end()));
        fails(
            score(&["--jsonl", &file]),
            1,
            &["rows.jsonl: line 6: ", part],
        );
    }
    let file = folder.file("rows.jsonl", "\n");
    fails(
        score(&["--jsonl", &file]),
        1,
        &["rows.jsonl: expected a JSON object on each line"],
    );
    let long = format!(
        "{{\"context\": \"a\", \"continuation\": \"{}\"}}",
        " b".repeat(600)
    );
    let file = folder.file("rows.jsonl", long);
    let part = "rows.jsonl: line 1: continuation: expected at most the 512 tokens";
    fails(score(&["--jsonl", &file]), 1, &[part]);
}

#[test]
fn results_replace_no_input() {
    let folder = TempDir::new();
    let rows = folder.file("rows.jsonl", ROWS);
    let model = folder.join("model");
    fs::create_dir(&model).unwrap();
    write_tales(&model, &[]);
    let weights = folder.file("adapter/adapters.safetensors", "");
    let [model, adapter] = ["model", "adapter"].map(|name| folder.at(name));
    for output in [&format!("{model}/model.safetensors"), &weights, &rows] {
        let before = fs::read(output).unwrap();
        let fixed = ["score", "--model", &model, "--adapter", &adapter];
        let args = [&fixed[..], &["--jsonl", &rows, "--output", output]].concat();
        fails(openelm(&args), 1, &[output, "an input of this command"]);
        assert!(fs::read(output).unwrap() == before, "{output}");
    }
}
