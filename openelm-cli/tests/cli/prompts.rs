//! `openelm generate --prompts`: rows in, texts out, and the continuation of a stopped run.

use std::{fs, path::Path};

use serde_json::Value;

use crate::tool::{generate, openelm, parse, tales};
use openelm_testing::{TempDir, fails, works, write_tales};

const ROWS: &str = r#"{"prompt":"Once upon a time","id":7,"x":5.692038748222122e-17}
{"prompt":"The king said","max_tokens":2}

{"messages":[{"role":"user","content":"Hello </s>"}],"seed":3}
{"prompt":"Once upon a time","stop":"girl"}
"#;

/// `openelm generate` with short texts of the rows in `file`.
fn texts(file: &str, args: &[&str]) -> std::process::Command {
    generate(&[&["-q", "-n", "6", "--prompts", file], args].concat())
}

fn rows(text: &str) -> Vec<Value> {
    text.lines().map(parse).collect()
}

#[test]
fn rows_keep_their_order_and_keys() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", ROWS);
    let found = works(texts(&file, &[]));
    for size in ["1", "2", "64"] {
        assert_eq!(works(texts(&file, &["--batch-size", size])), found);
    }
    let found = rows(&found);
    assert_eq!(found.len(), 4);
    let alone = works(generate(&["-q", "-n", "6", "-p", "Once upon a time"]));
    assert_eq!(found[0]["text"], alone.trim_end_matches('\n'));
    assert_eq!(found[0]["id"], 7);
    assert_eq!(found[0]["x"].to_string(), "5.692038748222122e-17");
    assert_eq!(found[0]["finish_reason"], "length");
    assert_eq!(found[1]["generated_tokens"], 2);
    assert_eq!(found[3]["finish_reason"], "stop");
    assert!(!found[3]["text"].as_str().unwrap().contains("girl"));
    // The user's `</s>` is text: it has several tokens.
    let plain = ["-q", "-n", "1", "--json", "--chat", "-p", "Hello </s>"];
    let events = works(generate(&plain));
    let last = parse(events.lines().last().unwrap());
    assert_eq!(found[2]["prompt_tokens"], last["prompt_tokens"]);
    let tokens = |args: &[&str]| {
        let args = [&["-q", "-n", "1", "--json", "-p", "Hello </s>"], args].concat();
        let events = works(generate(&args));
        parse(events.lines().last().unwrap())["prompt_tokens"]
            .as_u64()
            .unwrap()
    };
    assert!(tokens(&["--no-special-tokens"]) > tokens(&[]));
    assert_eq!(tokens(&["--no-special-tokens"]), tokens(&["--chat"]));
}

#[test]
fn copied_keys_stay_as_they_are_written() {
    let folder = TempDir::new();
    let copied =
        r#""id":12345678901234567890123,"x":0.10000000000000000000001,"n":[1E40,{"y":-0.0}]"#;
    let row = format!("{{{copied}, \"prompt\": \"a\", \"seed\": null}}\n");
    let file = folder.file("rows.jsonl", row.repeat(2));
    let output = folder.at("texts.jsonl");
    let args = ["--temp", "1", "--seed", "5", "--output", &output];
    works(texts(&file, &args));
    let whole = fs::read_to_string(&output).unwrap();
    assert!(
        whole.starts_with(&format!("{{{copied},\"prompt\":\"a\",\"text\":")),
        "{whole}"
    );
    for end in [whole.find('\n').unwrap() + 1, copied.len()] {
        fs::write(&output, &whole[..end]).unwrap();
        works(texts(&file, &args));
        assert_eq!(fs::read_to_string(&output).unwrap(), whole);
    }
    // Another number with the same nearest double.
    let other = whole.replace("12345678901234567890123", "12345678901234567890124");
    fs::write(&output, other).unwrap();
    fails(texts(&file, &args), 1, &["line 1: expected the text of"]);
}

#[test]
fn each_row_has_a_seed_of_its_own() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", ROWS);
    let drawn = ["--temp", "1", "--seed", "5"];
    let found = works(texts(&file, &drawn));
    for size in ["1", "3"] {
        let more = [&drawn[..], &["--batch-size", size]].concat();
        assert_eq!(works(texts(&file, &more)), found);
    }
    let found = rows(&found);
    assert_eq!(found[2]["seed"], 3);
    assert_ne!(found[0]["seed"], found[3]["seed"]);
    let seed = found[0]["seed"].to_string();
    let prompt = ["-q", "-n", "6", "-p", "Once upon a time", "--temp", "1"];
    let alone = works(generate(&[&prompt[..], &["--seed", &seed]].concat()));
    assert_eq!(found[0]["text"], alone.trim_end_matches('\n'));
}

#[test]
fn a_stopped_run_is_continued() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", ROWS);
    let output = folder.at("texts.jsonl");
    let args = ["--temp", "1", "--seed", "5", "--output", &output];
    assert_eq!(works(texts(&file, &args)), "");
    let whole = fs::read_to_string(&output).unwrap();
    let ends: Vec<_> = whole.match_indices('\n').map(|(at, _)| at + 1).collect();
    // Between two lines, and within a line.
    for end in [0, 1, ends[0], ends[0] + 3, ends[1] + 60, whole.len() - 1] {
        fs::write(&output, &whole[..end]).unwrap();
        works(texts(&file, &args));
        assert_eq!(fs::read_to_string(&output).unwrap(), whole, "from {end}");
    }
    works(texts(&file, &args));
    assert_eq!(fs::read_to_string(&output).unwrap(), whole);
    // Another process writes it.
    fs::write(&output, &whole[..ends[0]]).unwrap();
    let writer = fs::OpenOptions::new().append(true).open(&output).unwrap();
    writer.lock().unwrap();
    fails(texts(&file, &args), 1, &[&output, "another process"]);
    assert_eq!(fs::read_to_string(&output).unwrap(), whole[..ends[0]]);
}

#[test]
fn a_run_with_other_options_is_not_continued() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", ROWS);
    let output = folder.at("texts.jsonl");
    let args = ["--output", &output];
    works(texts(&file, &args));
    let whole = fs::read_to_string(&output).unwrap();
    let first = &whole[..=whole.find('\n').unwrap()];
    let schema = folder.file("schema.json", "{\"type\": \"boolean\"}");
    let copy = TempDir::new();
    write_tales(&copy, &[]);
    let others: [(&[&str], &str); 10] = [
        (&["-n", "7"], "--max-tokens: expected 6, found 7"),
        (&["--temp", "0.8"], "--temp: expected 0.0, found 0.8"),
        (
            &["--logit-bias", "7-1.5"],
            "--logit-bias: expected none, found [\"7-1.5\"]",
        ),
        (&["--chat"], "--chat: expected false, found true"),
        (
            &["--no-special-tokens"],
            "--no-special-tokens: expected false, found true",
        ),
        (
            &["--stop", "girl"],
            "--stop: expected none, found [\"girl\"]",
        ),
        (
            &["--json-schema", &schema],
            "--json-schema: expected none, found",
        ),
        (
            &["--extra-eos-token", "5"],
            "--extra-eos-token: expected none, found [5]",
        ),
        (
            &["--max-kv-size", "64"],
            "--max-kv-size: expected none, found 64",
        ),
        (
            &["--dtype", "bfloat16"],
            "--dtype: expected none, found \"bfloat16\"",
        ),
    ];
    // A complete file, too.
    for text in [first, &whole] {
        fs::write(&output, text).unwrap();
        for (more, problem) in others {
            let more = [&args[..], more].concat();
            let mut command = openelm(&["generate", "--model", &tales(), "-q", "--prompts", &file]);
            command
                .args(["-n", "6"].iter().filter(|_| more[2] != "-n"))
                .args(more);
            fails(command, 1, &[&output, "begun with other options", problem]);
            assert_eq!(fs::read_to_string(&output).unwrap(), text);
        }
        let mut command = openelm(&["generate", "--model", copy.as_str(), "-q", "-n", "6"]);
        command.args(["--prompts", &file]).args(args);
        fails(command, 1, &[&output, "--model: expected ", copy.as_str()]);
    }
    // Options of speed may differ.
    fs::write(&output, first).unwrap();
    works(texts(
        &file,
        &[&args[..], &["--batch-size=1", "--prompt-lookup=2"]].concat(),
    ));
    assert_eq!(fs::read_to_string(&output).unwrap(), whole);
    // Without texts nothing is mixed.
    fs::write(&output, "").unwrap();
    works(texts(&file, &["--output", &output, "--stop", "girl"]));
    fails(
        texts(&file, &args),
        1,
        &["--stop: expected [\"girl\"], found none"],
    );
    // The options of the texts are not known.
    let options = folder.at("texts.jsonl.options.json");
    fs::remove_file(&options).unwrap();
    let missing = "the file of its options, texts.jsonl.options.json, is missing";
    fails(texts(&file, &args), 1, &[&output, missing]);
    fs::write(&output, "").unwrap();
    fs::write(&options, "notes").unwrap();
    fails(texts(&file, &args), 1, &[&options, "found another file"]);
    assert_eq!(fs::read_to_string(&options).unwrap(), "notes");
}

#[test]
fn other_weights_do_not_continue_a_run() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", ROWS);
    let (model, output) = (TempDir::new(), folder.at("texts.jsonl"));
    let run = || {
        let mut command = openelm(&["generate", "--model", model.as_str(), "-q", "-n", "2"]);
        command.args(["--prompts", &file, "--output", &output]);
        command
    };
    write_tales(&model, &[]);
    works(run());
    let whole = fs::read_to_string(&output).unwrap();
    let first = &whole[..=whole.find('\n').unwrap()];
    fs::write(&output, first).unwrap();
    write_tales(&model, &[("transformer.norm.weight", 0, 0.5)]);
    fails(
        run(),
        1,
        &[
            &output,
            "--model: expected weights and adapters with the hash",
        ],
    );
    assert_eq!(fs::read_to_string(&output).unwrap(), first);
}

#[test]
fn other_files_stay_untouched() {
    let folder = TempDir::new();
    let row = r#"{"prompt":"Hello"}"#;
    let file = folder.file("rows.jsonl", row);
    let with = |output: &str| texts(&file, &["--output", output]);
    let line = format!("{row}\n");
    for other in ["notes", "\n", "{", row, &line, "{\"text\":\"\"}\n"] {
        let output = folder.file("other.jsonl", other);
        let parts = [
            &*output,
            "line 1: expected the text of",
            "choose another file",
        ];
        if other == "{" {
            // The beginning of the row.
            continue;
        }
        fails(with(&output), 1, &parts);
        assert_eq!(fs::read_to_string(&output).unwrap(), other);
    }
    fails(with(&file), 1, &["is an input of this command (--prompts"]);
    assert_eq!(fs::read_to_string(&file).unwrap(), row);
    fails(
        with(&folder.at("none/texts.jsonl")),
        1,
        &["none/texts.jsonl"],
    );
    let inside = Path::new(&file).parent().unwrap().join("folder");
    fs::create_dir(&inside).unwrap();
    fails(
        with(inside.to_str().unwrap()),
        1,
        &["expected a file or a new path"],
    );
}

#[test]
fn malformed_rows_are_named() {
    let folder = TempDir::new();
    let long = format!("{{\"prompt\":\"{}\"}}", "word ".repeat(600));
    for (row, problem) in [
        ("", "expected a JSON object on each line, found no line"),
        ("[1]", "line 1: expected a JSON object, found a list"),
        ("{}", "line 1: `prompt` is missing"),
        (r#"{"prompt":1}"#, "line 1: `prompt`: expected a string"),
        (r#"{"prompt":""}"#, "line 1: `prompt` is empty"),
        (r#"{"prompt":"a","messages":[]}"#, "found both"),
        (r#"{"messages":[]}"#, "no message of the user"),
        (
            r#"{"prompt":"a","text":"b"}"#,
            "`text`: a key of the output",
        ),
        (r#"{"prompt":"a","adapter":"b"}"#, "by --adapter"),
        (
            r#"{"prompt":"a","max_tokens":-1}"#,
            "`max_tokens`: expected",
        ),
        (r#"{"prompt":"a","seed":0.5}"#, "`seed`: expected"),
        (r#"{"prompt":"a","stop":[1]}"#, "`stop`: expected strings"),
        (&long, "line 1: the prompt has 602 tokens"),
    ] {
        let file = folder.file("rows.jsonl", row);
        fails(texts(&file, &[]), 1, &["rows.jsonl", problem]);
    }
    // Byte order mark and Windows' line ends.
    let file = folder.file("rows.jsonl", "\u{feff}{\"prompt\":\"a\"}\r\n\r\n");
    assert_eq!(rows(&works(texts(&file, &[]))).len(), 1);
}

#[test]
fn options_without_effect_are_refused() {
    let folder = TempDir::new();
    let file = folder.file("rows.jsonl", "{\"prompt\":\"a\"}\n");
    for size in ["0", "1025"] {
        let problem = format!("--batch-size: expected 1 to 1024, found {size}");
        fails(texts(&file, &["--batch-size", size]), 2, &[&problem]);
    }
    let alone = |args: &[&str]| generate(&[&["-p", "x"], args].concat());
    fails(
        alone(&["-b", "2"]),
        2,
        &["--batch-size: no effect without --prompts"],
    );
    fails(
        alone(&["-o", "y"]),
        2,
        &["--output: no effect without --prompts"],
    );
    fails(
        alone(&["--prompt-lookup=2", "--num-draft-tokens=2"]),
        2,
        &["--num-draft-tokens: no effect without --draft-model"],
    );
    let plain = texts(&file, &["--chat-template", "plain"]);
    fails(plain, 2, &["--chat-template: no effect without --chat"]);
    let chat = texts(&file, &["--chat", "--no-special-tokens"]);
    fails(chat, 2, &["--no-special-tokens: no effect with --chat"]);
    let messages = r#"{"messages":[{"role":"user","content":"a"}]}"#;
    let file = folder.file("messages.jsonl", messages);
    let chat = texts(&file, &["--chat", "--system", "b"]);
    fails(chat, 2, &["--chat: no effect on rows with `messages`"]);
}

#[test]
fn rows_before_a_failed_row_are_written() {
    let folder = TempDir::new();
    let rows = "{\"prompt\":\"a\",\"max_tokens\":6}\n{\"prompt\":\"b\",\"max_tokens\":1}\n";
    let file = folder.file("rows.jsonl", rows);
    let output = folder.at("texts.jsonl");
    let regex = [
        "--regex",
        "[a-z]{6}",
        "--at-limit",
        "error",
        "--output",
        &output,
    ];
    let problem = "rows.jsonl: line 2: --at-limit: the text is incomplete after 1 token";
    fails(texts(&file, &regex), 1, &[problem]);
    assert_eq!(fs::read_to_string(&output).unwrap().lines().count(), 1);
}
