//! Invalid command lines and values out of range.

use crate::tool::{generate, openelm, tales};
use openelm_testing::{TempDir, fails, run, works};

#[test]
fn rejects_invalid_command_lines() {
    // Detected by clap.
    let cases: [(&[&str], &str); 8] = [
        (&[], "Usage:"),
        (&["frobnicate"], "frobnicate"),
        (&["--frobnicate"], "--frobnicate"),
        (&["generate", "--frobnicate"], "--frobnicate"),
        (&["generate", "--prompt", "x"], "--model <PATH|REPO>"),
        (
            &[
                "generate",
                "--model",
                "x",
                "--prompt",
                "x",
                "--prompt-file",
                "y",
            ],
            "--prompt-file",
        ),
        (&["generate", "--model", "x", "--logprobs", "2"], "--json"),
        (&["bench"], "--model <PATH|REPO>"),
    ];
    for (args, part) in cases {
        let outcome = run(openelm(args));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
        // Without arguments, the help is shown.
        let lines = outcome.stderr.lines().count();
        assert!(lines == 1 || args.is_empty(), "{outcome:?}");
    }
    for args in [
        &["--help"][..],
        &["help", "generate"],
        &["bench", "--help"],
        &["--version"],
    ] {
        assert!(works(openelm(args)).contains("openelm"));
    }
}

#[test]
fn rejects_values_out_of_range() {
    for (option, values) in [
        (
            "--temp",
            &["NaN", "-0.1", "inf", "-inf", "abc", "", "1e999"][..],
        ),
        ("--top-p", &["0", "1.5", "NaN", "-0.5", "inf", "abc"]),
        ("--min-p", &["-0.1", "1.1", "NaN", "inf", "abc"]),
        ("--repetition-penalty", &["0", "-1", "NaN", "inf", "abc"]),
        ("--typical-p", &["0", "1.5", "NaN"]),
        ("--top-n-sigma", &["-1", "NaN", "inf"]),
        ("--xtc-probability", &["-0.1", "1.1"]),
        ("--xtc-threshold", &["0.6", "-0.1"]),
        ("--presence-penalty", &["inf", "NaN"]),
        ("--frequency-penalty", &["-inf", "abc"]),
        ("--presence-context-size", &["0", "-1"]),
        ("--repetition-context-size", &["0", "all"]),
        ("--dry-multiplier", &["-1", "inf"]),
        ("--dry-base", &["0.9"]),
        ("--dry-allowed-length", &["0"]),
        ("--dry-penalty-last-n", &["0", "-1"]),
        ("--logit-bias", &["5", "5+inf", "5+NaN", "a+1", ""]),
        ("--banned-string", &[""]),
        ("--top-k", &["abc", "1.5", "99999999999999999999999"]),
        ("--max-tokens", &["abc", "1.5", "99999999999999999999999"]),
        ("--seed", &["abc", "18446744073709551616"]),
        ("--prefill-chunk", &["abc", "0"]),
        ("--dtype", &["int8", "", "a\n\nb\u{1b}[31m"]),
    ] {
        let name = match option {
            "--temp" => "temp",
            option => option.trim_start_matches('-'),
        };
        for value in values {
            let option = format!("{option}={value}");
            fails(generate(&["-p", "x", &option]), 2, &[name]);
        }
    }
    // In two arguments, too.
    for option in ["--max-tokens", "--seed", "--top-k"] {
        fails(generate(&["-p", "x", option, "-1"]), 2, &["'-1'", option]);
    }
    fails(
        generate(&["-p", "-5 degrees", "--top-p", "2"]),
        2,
        &["--top-p"],
    );
    // An id above the vocabulary size is found once the model is loaded.
    fails(
        generate(&["-p", "x", "--logit-bias", "2048+1"]),
        2,
        &["--logit-bias", "2048"],
    );
    let unknown = ["-p", "x", "--extra-eos-token", "nothing"];
    fails(generate(&unknown), 2, &["--extra-eos-token", "nothing"]);
    // A value above the vocabulary size is found once the model is loaded.
    let args = ["-p", "x", "-n", "1", "--json", "--logprobs", "2049"];
    fails(generate(&args), 2, &["logprobs", "2048"]);
    fails(
        openelm(&["bench", "--preset", "7B"]),
        2,
        &["7B", "270M, 450M, 1_1B or 3B"],
    );
    fails(openelm(&["completions", "cmd"]), 2, &["cmd", "bash"]);
    fails(openelm(&["info", ""]), 2, &["MODEL"]);
    fails(
        openelm(&["generate", "--model", "", "-p", "x"]),
        2,
        &["--model"],
    );
}

#[cfg(unix)]
#[test]
fn rejects_arguments_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let bytes = std::ffi::OsStr::from_bytes(b"caf\xe9");
    for args in [&["generate", "-m", "x", "-p"][..], &["info"]] {
        let mut command = openelm(args);
        command.arg(bytes);
        fails(command, 2, &["UTF-8"]);
    }
    // Paths need not be UTF-8.
    let mut command = openelm(&["generate", "-p", "x", "-m"]);
    command.arg(bytes);
    fails(command, 1, &["no such file or folder"]);
}

#[test]
fn completions_list_the_commands() {
    for shell in ["bash", "zsh", "fish"] {
        let script = works(openelm(&["completions", shell]));
        for word in [
            "generate",
            "info",
            "bench",
            "completions",
            "repetition-penalty",
        ] {
            assert!(script.contains(word), "{shell}: {word}");
        }
    }
}

#[test]
fn rejects_options_without_effect() {
    for (option, is_refused) in [
        ("--top-k=5", true),
        ("--top-p=0.9", true),
        ("--min-p=0.1", true),
        ("--typical-p=0.9", true),
        ("--top-n-sigma=1", true),
        ("--xtc-probability=0.5", true),
        ("--presence-penalty=1", false),
        ("--seed=1", true),
        ("--top-p=1", false),
        ("--repetition-penalty=1.2", false),
    ] {
        let args = ["-p", "The", "-n", "1", "-q", "--temp", "0", option];
        if is_refused {
            let name = option.split('=').next().unwrap();
            fails(generate(&args), 2, &[name, "no effect with --temp 0"]);
        } else {
            works(generate(&args));
        }
    }
    works(generate(&["-p", "The", "-n", "1", "-q", "--top-p", "0.9"]));
    for (option, other) in [
        ("--xtc-threshold=0.2", "--xtc-probability"),
        ("--repetition-context-size=20", "--repetition-penalty"),
        ("--presence-context-size=20", "--presence-penalty"),
        ("--frequency-context-size=20", "--frequency-penalty"),
        ("--dry-base=2", "--dry-multiplier"),
        ("--dry-sequence-breaker=x", "--dry-multiplier"),
    ] {
        let name = option.split('=').next().unwrap();
        let reason = format!("no effect without {other}");
        fails(generate(&["-p", "The", option]), 2, &[name, &reason]);
    }
    let unquantised = "no effect on a model that is not quantised";
    let args = ["-p", "The", "--keep-quantized"];
    fails(generate(&args), 2, &["--keep-quantized", unquantised]);
    let bench = openelm(&["bench", "--preset", "270M", "--keep-quantized"]);
    fails(bench, 2, &["--keep-quantized", unquantised]);
    let convert = |more: &[&str]| openelm(&[&["convert", "--dry-run", &tales()], more].concat());
    for (more, part) in [
        (&["--dequantize"][..], "--dequantize: the model is not"),
        (&["--ema"], "--ema: only PyTorch"),
        (
            &["--dequantize", "--q-bits=4"],
            "--q-bits: no effect without --quantize",
        ),
        (
            &["--to=gguf", "--max-shard-size=1GB"],
            "--max-shard-size: no effect on a format with one weight file",
        ),
    ] {
        fails(convert(more), 2, &[part]);
    }
}

#[test]
fn names_yaml_settings() {
    let folder = TempDir::new();
    let file = folder.file("lora.yaml", "batch_size: 4\niters: 10\n");
    for command in ["finetune", "pretrain"] {
        let args = [command, "-m", "x", "--config", &file];
        let args = if command == "pretrain" {
            &[command, "--config", &file][..]
        } else {
            &args
        };
        fails(
            openelm(args),
            2,
            &["lora.yaml: a YAML file, expected a configuration of CoreNet"],
        );
    }
}
