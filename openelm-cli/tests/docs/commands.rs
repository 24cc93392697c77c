//! Commands of `sh` blocks.

use std::{env, fs, os::unix::fs::symlink, path::Path, process::Command};

use openelm_testing::{Outcome, TempDir, repository, run};

use crate::markdown::{Block, Page};

/// Programs that are neither run nor checked.
const OTHERS: [&str; 15] = [
    "actionlint",
    "apt-get",
    "cargo-deny",
    "cd",
    "eval",
    "export",
    "git",
    "mlx.launch",
    "pip",
    "printf",
    "rustup",
    "sudo",
    "unset",
    "xcode-select",
    "xcodebuild",
];

/// Checks the commands of a page and returns their number.
///
/// Bash runs lines with `openelm`, in a folder for the page that holds `examples`. In a block
/// marked `no-run` the folder is empty, and the tool must accept the command line: it may fail to
/// find a file (exit code 1), but must not report invalid usage (2).
pub(crate) fn check(page: &Page) -> usize {
    let folder = TempDir::new();
    symlink(repository("examples"), folder.join("examples")).unwrap();
    let empty = TempDir::new();
    let mut count = 0;
    for block in page.blocks() {
        if !["sh", "bash", "console", "shell"].contains(&block.language.as_str()) {
            continue;
        }
        assert_eq!(block.language, "sh", "{}: use `sh`", block.place());
        for command in block.commands() {
            count += 1;
            let words = words(&command);
            let program = words.iter().find(|word| !is_assignment(word));
            let runs = ["openelm", "mkdir", "echo"].contains(&program.unwrap().as_str());
            if !runs {
                check_other(&block, &words);
            }
            let launched = command
                .strip_prefix("mlx.launch")
                .and_then(|rest| rest.split_once("-- "));
            match (runs, block.no_run, launched) {
                (true, false, _) => {
                    let Outcome { code, stderr, .. } = shell(&folder, &command);
                    assert_eq!(code, Some(0), "{}: {command}\n{stderr}", block.place());
                }
                (true, true, _) => accepts(&block, &empty, &command),
                (false, _, Some((_, openelm))) => accepts(&block, &empty, openelm),
                (false, _, None) => {}
            }
        }
    }
    count
}

fn accepts(block: &Block<'_>, folder: &Path, command: &str) {
    let Outcome { code, stderr, .. } = shell(folder, command);
    let accepted = matches!(code, Some(0 | 1));
    assert!(accepted, "{}: {command}\n{stderr}", block.place());
}

/// Runs a line with the tool first in `PATH`.
fn shell(folder: &Path, line: &str) -> Outcome {
    let tool = Path::new(env!("CARGO_BIN_EXE_openelm"));
    let mut paths = vec![tool.parent().unwrap().to_owned()];
    paths.extend(env::split_paths(&env::var_os("PATH").unwrap()));
    let mut command = Command::new("bash");
    command
        .args(["-o", "pipefail", "-c", line])
        .current_dir(folder)
        .env("PATH", env::join_paths(paths).unwrap())
        .env("OPENBLAS_NUM_THREADS", "1")
        .env("HF_HUB_OFFLINE", "1");
    run(command)
}

/// Checks that targets, crates, examples and scripts exist.
fn check_other(block: &Block<'_>, words: &[String]) {
    let place = block.place();
    let mut words = words.iter().skip_while(|word| is_assignment(word));
    let program = words.next().unwrap().as_str();
    match program {
        "make" => {
            let makefile = fs::read_to_string(repository("Makefile")).unwrap();
            for target in words.filter(|word| !is_assignment(word)) {
                let rule = format!("\n{target}:");
                assert!(makefile.contains(&rule), "{place}: no target {target}");
            }
        }
        "cargo" => {
            let words: Vec<&str> = words.map(String::as_str).collect();
            for pair in words.windows(2) {
                let path = match pair[0] {
                    "-p" | "--package" => format!("{}/Cargo.toml", pair[1]),
                    "--example" => format!("examples/{}.rs", pair[1]),
                    _ => continue,
                };
                assert!(repository(&path).exists(), "{place}: {path} does not exist");
            }
        }
        "python3" => {
            for script in words.filter(|word| word.ends_with(".py")) {
                assert!(
                    repository(script).exists(),
                    "{place}: {script} does not exist"
                );
            }
        }
        "swift" => {
            let manifest = fs::read_to_string(repository("Package.swift")).unwrap();
            for name in words.filter(|word| word.starts_with("openelm-")) {
                let target = format!("name: \"{name}\"");
                assert!(manifest.contains(&target), "{place}: no target {name}");
            }
        }
        path if path.contains('/') => {
            assert!(repository(path).exists(), "{place}: {path} does not exist");
        }
        other => {
            let message = "is not checked; add it to `OTHERS` or mark the block as `text`";
            assert!(OTHERS.contains(&other), "{place}: {other} {message}");
        }
    }
}

fn is_assignment(word: &str) -> bool {
    word.split_once('=').is_some_and(|(name, _)| {
        !name.is_empty() && name.chars().all(|c| c.is_ascii_uppercase() || c == '_')
    })
}

/// Words of a line, quotes removed, up to a comment.
fn words(line: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(open), close) if open == close => quote = None,
            (None, '\'' | '"') => quote = Some(character),
            (None, '#') if word.is_empty() => break,
            (None, ' ') => words.push(std::mem::take(&mut word)),
            _ => word.push(character),
        }
    }
    words.push(word);
    words.retain(|word| !word.is_empty());
    words
}
