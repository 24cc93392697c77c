//! `openelm cache-prompt`, and `generate` with its file.

use std::fs;

use crate::tool::{generate, openelm, tales};
use openelm_testing::{TempDir, fails, run, works};

/// `openelm cache-prompt` with the bundled model.
fn cache_prompt(args: &[&str]) -> std::process::Command {
    let mut command = openelm(&["cache-prompt", "--model", &tales(), "--quiet"]);
    command.args(args);
    command
}

const PROMPT: &str = "Once upon a time there was a king who had three sons";
const AFTER: &str = "and the youngest";

#[test]
fn the_size_is_that_of_the_file() {
    let folder = TempDir::new();
    let file = folder.at("king.safetensors");
    let mut command = openelm(&["cache-prompt", "--model", &tales(), "-p", "The king"]);
    command.args(["--prompt-cache-file", &file]);
    let outcome = run(command);
    let bytes = fs::metadata(&file).unwrap().len();
    let size = format!("file: {:.1} kB\n", bytes as f64 / 1e3);
    assert!((10_000..100_000).contains(&bytes), "{bytes}");
    assert!(outcome.stderr.ends_with(&size), "{size} | {outcome:?}");
}

#[test]
fn cached_prompt_is_continued() {
    let folder = TempDir::new();
    let file = folder.at("king.safetensors");
    let text = |args: &[&str]| {
        works(generate(
            &[&["-q", "-n", "12", "--ignore-eos"], args].concat(),
        ))
    };
    let whole = text(&["-p", &format!("{PROMPT} {AFTER}")]);
    let after = ["-p", AFTER, "--prompt-cache-file", &file];
    for _ in 0..2 {
        assert_eq!(
            works(cache_prompt(&["-p", PROMPT, "--prompt-cache-file", &file])),
            ""
        );
        // The file stays, and can be used again.
        assert_eq!(text(&after), whole);
        assert_eq!(text(&after), whole);
    }
    let bits = [
        "--kv-bits=8",
        "--kv-group-size=32",
        "--quantized-kv-start=0",
    ];
    let quantized = [&after[..], &bits].concat();
    assert_eq!(text(&quantized), whole);

    let rotating = [
        "-p",
        PROMPT,
        "--prompt-cache-file",
        &file,
        "--max-kv-size=8",
    ];
    works(cache_prompt(&rotating));
    let rotated = text(&["-p", &format!("{PROMPT} {AFTER}"), "--max-kv-size=8"]);
    assert_ne!(rotated, whole);
    assert_eq!(text(&after).lines().count(), rotated.lines().count());
}

/// As other files of the tool: readable as the system's default says, not for the owner alone.
#[cfg(unix)]
#[test]
fn the_file_has_the_default_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = TempDir::new();
    let file = folder.at("king.safetensors");
    works(cache_prompt(&["-p", PROMPT, "--prompt-cache-file", &file]));
    let mode = |path: &str| fs::metadata(path).unwrap().permissions().mode();
    assert_eq!(mode(&file), mode(&folder.file("other", "")));
}

#[test]
fn plain_text_follows_a_cached_prompt() {
    let folder = TempDir::new();
    let file = folder.at("king.safetensors");
    works(cache_prompt(&["-p", PROMPT, "--prompt-cache-file", &file]));
    let tokens = |more: &[&str]| {
        let args = [
            "-p",
            "x</s>y",
            "--prompt-cache-file",
            &file,
            "-n1",
            "--json",
            "-q",
        ];
        let output = works(generate(&[&args[..], more].concat()));
        let last = output.lines().last().unwrap();
        let event: serde_json::Value = serde_json::from_str(last).unwrap();
        event["prompt_tokens"].as_u64().unwrap()
    };
    // Else `</s>` is one token.
    assert!(tokens(&["--no-special-tokens"]) > tokens(&[]));
}

#[test]
fn other_kinds_and_files_are_refused() {
    let folder = TempDir::new();
    let file = folder.at("king.safetensors");
    let with =
        |args: &[&str]| cache_prompt(&[&["-p", PROMPT, "--prompt-cache-file"], args].concat());
    works(with(&[&file, "--max-kv-size=16"]));
    let after = |args: &[&str]| {
        generate(&[&["-q", "-p", AFTER, "--prompt-cache-file", &file], args].concat())
    };
    fails(
        after(&["--max-kv-size=17"]),
        2,
        &["--max-kv-size: expected 16, as in the prompt cache, found 17"],
    );
    fails(after(&["--kv-bits=8"]), 2, &["--kv-bits: a rotating cache"]);
    fails(
        after(&["--dtype=bfloat16"]),
        1,
        &[&file, "float32", "bfloat16"],
    );
    works(with(&[
        &file,
        "--kv-bits=8",
        "--kv-group-size=32",
        "--quantized-kv-start=0",
    ]));
    fails(
        after(&["--kv-bits=4"]),
        2,
        &["--kv-bits: expected 8, as in the prompt cache, found 4"],
    );
    fails(
        after(&["--kv-group-size=64"]),
        2,
        &["--kv-group-size: expected 32, as in the prompt cache, found 64"],
    );
    let bytes = fs::read(&file).unwrap();
    fs::write(&file, &bytes[..bytes.len() / 2]).unwrap();
    fails(after(&[]), 1, &[&file, "truncated or damaged"]);

    let mine = folder.file("notes.txt", "mine");
    fails(with(&[&mine]), 1, &["notes.txt", "not a prompt cache"]);
    fails(with(&[&tales()]), 1, &["is an input of this command"]);
    for (option, problem) in [
        ("--max-kv-size=4", "--max-kv-size: expected a number from 5"),
        (
            "--kv-bits=3",
            "--kv-bits: expected one of [2, 4, 8], found 3",
        ),
        (
            "--kv-group-size=32",
            "--kv-group-size: no effect without --kv-bits",
        ),
        (
            "--quantized-kv-start=0",
            "--quantized-kv-start: no effect without --kv-bits",
        ),
    ] {
        fails(with(&[&file, option]), 2, &[problem]);
        fails(generate(&["-p", "The", option]), 2, &[problem]);
    }
    let late = "--kv-bits: no effect: --quantized-kv-start is 5000, the model's context 512";
    fails(
        generate(&["-p", "The", "--kv-bits=8", "--kv-group-size=32"]),
        2,
        &[late],
    );
    fails(
        with(&[&file, "--kv-bits=8", "--kv-group-size=32"]),
        2,
        &[late],
    );
    let both = ["-p", "The", "--max-kv-size=64", "--kv-bits=8"];
    fails(
        generate(&both),
        2,
        &["--kv-bits: a rotating cache cannot be quantised"],
    );
    assert_eq!(folder.names(), ["king.safetensors", "notes.txt"]);
}
