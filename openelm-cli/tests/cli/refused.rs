//! Unusable models, prompts and tokenizers.

use std::process::Command;

use openelm_core::config::Preset;
use openelm_testing::{Outcome, TempDir, fails, failure, run, works};

use crate::tool::{generate, openelm, small, tales, with_model};

#[test]
fn rejects_missing_models() {
    let empty = TempDir::new();
    let nowhere = empty.join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for command in [
        &["generate", "-p", "x", "-m"][..],
        &["info"],
        &["bench", "-n", "2", "-m"],
    ] {
        let on = |model| openelm(&[command, &[model]].concat());
        let parts = [nowhere, "no such file or folder", "expected a model folder"];
        fails(on(nowhere), 1, &parts);
        fails(
            on(empty.as_str()),
            1,
            &[empty.as_str(), "config.json", "not found"],
        );
    }
    let config = TempDir::new();
    config.file("config.json", small(64).to_json());
    fails(
        openelm(&["generate", "-p", "x", "-m", config.as_str()]),
        1,
        &[config.as_str(), "model.safetensors"],
    );
    config.file("model.safetensors", "");
    let file = config.join("model.safetensors");
    let damaged = [file.to_str().unwrap(), "not a safetensors file"];
    fails(
        openelm(&["generate", "-p", "x", "-m", config.as_str()]),
        1,
        &damaged,
    );
    fails(openelm(&["info", config.as_str()]), 1, &damaged);
    fails(openelm(&["bench", "-m", config.as_str()]), 1, &damaged);
    config.file("config.json", "{");
    let file = config.join("config.json");
    fails(
        openelm(&["info", config.as_str()]),
        1,
        &[file.to_str().unwrap()],
    );
}

/// File names and contents are escaped before they reach the terminal.
#[cfg(unix)]
#[test]
fn escapes_line_breaks_in_names() {
    let model = with_model(&small(64));
    fails(
        openelm(&["info", "/a\nb\u{1b}[31m"]),
        1,
        &[r"/a\nb\u{1b}[31m"],
    );
    let header = r#"{"a\nb\u001b[2J":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    model.file("model.safetensors", bytes);
    fails(
        openelm(&["info", model.as_str()]),
        1,
        &[r"`a\nb\u{1b}[2J`", "I8"],
    );
}

#[test]
fn rejects_unusable_prompts() {
    let folder = TempDir::new();
    fails(generate(&["-p", ""]), 2, &["prompt", "empty"]);
    // Standard input is empty.
    let problem = "standard input: the prompt is empty";
    fails(generate(&[]), 2, &[problem]);
    fails(generate(&["-p", "-"]), 2, &[problem]);
    let empty = folder.file("empty.txt", "\n");
    fails(
        generate(&["--prompt-file", &empty]),
        2,
        &[&format!("{empty}: the prompt is empty")],
    );

    let latin = folder.file("latin.txt", b"caf\xe9 au lait");
    fails(
        generate(&["--prompt-file", &latin]),
        1,
        &[&latin, "not UTF-8", "byte 3"],
    );
    let nowhere = folder.join("nowhere.txt");
    let nowhere = nowhere.to_str().unwrap();
    fails(
        generate(&["--prompt-file", nowhere]),
        1,
        &[nowhere, "No such file"],
    );
    fails(
        generate(&["--prompt-file", folder.as_str()]),
        1,
        &[folder.as_str(), "directory"],
    );
    #[cfg(target_os = "linux")]
    fails(
        generate(&["--prompt-file", "/dev/zero"]),
        1,
        &["/dev/zero", "expected at most 67108864 bytes, found more"],
    );

    let long = folder.file("long.txt", "king ".repeat(2000));
    fails(
        generate(&["--prompt-file", &long]),
        1,
        &["tokens", "context holds 512"],
    );
    let bench = |tokens| {
        openelm(&[
            "bench",
            "-m",
            &tales(),
            "-n",
            "2",
            "--prompt-tokens",
            tokens,
        ])
    };
    let largest = usize::MAX.to_string();
    for tokens in ["0", "512", &largest] {
        let expected = "--prompt-tokens: expected 1 to 511";
        fails(bench(tokens), 2, &[expected, "context", tokens]);
    }
    fails(
        openelm(&["bench", "-m", &tales(), "-n", "1"]),
        2,
        &["--max-tokens"],
    );
    fails(
        openelm(&["bench", "-m", &tales(), "--repeat", "0"]),
        2,
        &["--repeat"],
    );
}

#[test]
fn rejects_missing_or_mismatched_tokenizers() {
    let model = with_model(&small(2048));
    let on = |model: &str, tokenizer: &[&str]| {
        let args = ["generate", "-m", model, "-n", "2", "-q", "-p", "x"];
        openelm(&[&args[..], tokenizer].concat())
    };
    let missing = [
        "tokenizer.json or tokenizer.model",
        "meta-llama/Llama-2-7b-hf",
        "--tokenizer",
    ];
    fails(
        on(model.as_str(), &[]),
        1,
        &[&[model.as_str()], &missing[..]].concat(),
    );
    let nowhere = model.join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    fails(
        on(model.as_str(), &["--tokenizer", nowhere]),
        1,
        &[nowhere, "no such file or folder", missing[0]],
    );
    let damaged = model.file("damaged.json", "{\"model\": 1}");
    fails(
        on(model.as_str(), &["--tokenizer", &damaged]),
        1,
        &[&damaged],
    );
    // In a model of zeros the most likely token is the first, which has no text.
    let tokenizer = ["--tokenizer", &tales()];
    assert_eq!(works(on(model.as_str(), &tokenizer)), "\n");
    let file = format!("{}/tokenizer.json", tales());
    assert_eq!(works(on(model.as_str(), &["--tokenizer", &file])), "\n");

    let model = with_model(&small(2047));
    let outcome = run(on(model.as_str(), &tokenizer));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    let warning = "tokenizer.json: the tokenizer has 2048 ids, the model's vocabulary 2047;";
    assert!(outcome.stderr.starts_with("warning: "), "{outcome:?}");
    assert!(outcome.stderr.contains(warning), "{outcome:?}");
}

#[test]
fn rejects_float16_for_3b_before_reading() {
    let model = with_model(&Preset::Size3B.config());
    let args = [
        "generate",
        "-m",
        model.as_str(),
        "-p",
        "x",
        "--dtype",
        "float16",
    ];
    fails(openelm(&args), 1, &["float16", "65504", "bfloat16"]);
}

/// The benchmark rejects the same dtype as `generate`, before it generates 6 GB of weights.
#[test]
fn rejects_float16_benchmark_of_3b() {
    let output = Command::new(env!("CARGO_BIN_EXE_openelm"))
        .args(["bench", "--preset", "3B", "--dtype", "float16"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("use bfloat16"), "{stderr}");
}

#[test]
fn rejects_constraints_by_name() {
    let folder = TempDir::new();
    let schema = folder.file("schema.json", r#"{"properties": {"a": {"not": {}}}}"#);
    let missing = folder.at("missing.lark");
    let model = tales();
    let generate = |options: &[&str]| {
        let start = ["generate", "-m", &*model, "-p", "Once"];
        openelm(&[&start, options].concat())
    };
    let keyword = "--json-schema: #/properties/a: the keyword `not` is not supported";
    fails(generate(&["--json-schema", &schema]), 2, &[keyword]);
    fails(
        generate(&["--grammar", &missing]),
        1,
        &["--grammar", &missing],
    );
    fails(
        generate(&["--regex", "(a"]),
        2,
        &["--regex:", "(a", "unclosed group"],
    );
    let both = failure(generate(&["--regex", "a", "--choice", "b"]), 2);
    assert!(
        both.contains("--regex") && both.contains("--choice"),
        "{both}"
    );
    let alone = failure(generate(&["--at-limit", "error"]), 2);
    assert!(alone.contains("--json-schema"), "{alone}");
    let endless = generate(&["--choice", "b", "--ignore-eos"]);
    fails(endless, 2, &["--ignore-eos", "not with --choice"]);
    for end in ["error", "close"] {
        for count in ["0", "2"] {
            let args = ["--regex", "[a-z]{30}[0-9]", "-n", count, "--at-limit", end];
            let Outcome { code, stderr, .. } = run(generate(&args));
            assert_eq!(code, Some(1), "{stderr}");
            let problem = format!("--at-limit: the text is incomplete after {count} tokens\n");
            assert_eq!(stderr, format!("openelm: {problem}"));
        }
    }
    let text = works(generate(&[
        "--choice", "-a fox", "--choice", "-a king", "-q",
    ]));
    assert!(["-a fox\n", "-a king\n"].contains(&text.as_str()), "{text}");
}
