//! The `openelm` tool from outside: exit codes, what goes to stdout and what to stderr, and for
//! every failure one line that says what and where.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use std::{
    fs,
    io::{Read, Write},
    ops::Deref,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
};

use openelm_core::{
    Preset,
    config::{Config, LayerWise},
};
use serde_json::{Value, json};

/// The bundled model.
fn tales() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../openelm-core/tests/fixtures/tales");
    path.to_str().unwrap().to_owned()
}

/// A folder that goes when its test ends.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("openelm-cli-{name}-{}", process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    /// A model of zeros, which take no space on the disk.
    fn with_model(name: &str, config: &Config) -> Self {
        let folder = Self::new(name);
        fs::write(folder.join("config.json"), config.to_json()).unwrap();
        let mut header = serde_json::Map::new();
        let mut end = 0;
        for (name, shape) in config.tensors() {
            let start = end;
            end += 2 * shape.iter().product::<usize>();
            let tensor = json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] });
            header.insert(name, tensor);
        }
        let header = Value::Object(header).to_string();
        let mut file = fs::File::create(folder.join("model.safetensors")).unwrap();
        file.write_all(&(header.len() as u64).to_le_bytes())
            .unwrap();
        file.write_all(header.as_bytes()).unwrap();
        file.set_len((8 + header.len() + end) as u64).unwrap();
        folder
    }

    /// The path of a file in it, which is written.
    fn file(&self, name: &str, bytes: impl AsRef<[u8]>) -> String {
        let path = self.join(name);
        fs::write(&path, bytes).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn name(&self) -> &str {
        self.to_str().unwrap()
    }
}

impl Deref for Folder {
    type Target = Path;

    fn deref(&self) -> &Path {
        &self.0
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// A small model of `vocab_size` tokens.
fn small(vocab_size: usize) -> Config {
    let settings = LayerWise {
        model_dim: 16,
        num_transformer_layers: 2,
        head_dim: 8,
        num_gqa_groups: Some(1),
        ffn_dim_divisor: 8,
        vocab_size,
        ..LayerWise::default()
    };
    Config::layer_wise(settings).unwrap()
}

fn openelm(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_openelm"));
    command.args(args).stdin(Stdio::null());
    command
}

/// `openelm generate` with the bundled model.
fn generate(args: &[&str]) -> Command {
    let mut command = openelm(&["generate", "--model", &tales()]);
    command.args(args);
    command
}

/// How a command ended.
#[derive(Debug)]
struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

fn run(mut command: Command) -> Outcome {
    let output = command.output().unwrap();
    let outcome = Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    assert!(!outcome.stderr.contains("panicked"), "{outcome:?}");
    outcome
}

/// Runs a command that has to work and returns its stdout.
#[track_caller]
fn works(command: Command) -> String {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    outcome.stdout
}

/// Runs a command that has to fail with one line on stderr and nothing on stdout.
#[track_caller]
fn fails(command: Command, code: i32, parts: &[&str]) {
    let outcome = run(command);
    assert_eq!(outcome.code, Some(code), "{outcome:?}");
    assert_eq!(outcome.stdout, "");
    assert_one_line(&outcome.stderr, parts);
}

#[track_caller]
fn assert_one_line(stderr: &str, parts: &[&str]) {
    assert!(stderr.starts_with("openelm: "), "{stderr}");
    assert!(
        stderr.ends_with('\n') && stderr.lines().count() == 1,
        "{stderr}"
    );
    for part in parts {
        assert!(stderr.contains(part), "{part} | {stderr}");
    }
}

fn parse(line: &str) -> Value {
    serde_json::from_str(line).unwrap()
}

#[test]
fn command_lines_that_make_no_sense() {
    // clap tells these, with a usage.
    let cases: [(&[&str], &str); 8] = [
        (&[], "Usage:"),
        (&["frobnicate"], "frobnicate"),
        (&["--frobnicate"], "--frobnicate"),
        (&["generate", "--frobnicate"], "--frobnicate"),
        (&["generate", "--prompt", "x"], "--model <FOLDER>"),
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
        (&["bench"], "--model <FOLDER>"),
    ];
    for (args, part) in cases {
        let outcome = run(openelm(args));
        assert_eq!(outcome.code, Some(2), "{outcome:?}");
        assert!(outcome.stderr.contains(part), "{outcome:?}");
        assert_eq!(outcome.stdout, "");
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
fn values_outside_their_ranges() {
    for (option, values) in [
        (
            "--temp",
            &["NaN", "-0.1", "inf", "-inf", "abc", "", "1e999"][..],
        ),
        ("--top-p", &["0", "1.5", "NaN", "-0.5", "inf", "abc"]),
        ("--min-p", &["-0.1", "1.1", "NaN", "inf", "abc"]),
        ("--repetition-penalty", &["0", "-1", "NaN", "inf", "abc"]),
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
    // More than the model has tokens can only be told once it is there.
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
fn arguments_that_are_not_utf8() {
    use std::os::unix::ffi::OsStrExt;
    let bytes = std::ffi::OsStr::from_bytes(b"caf\xe9");
    for args in [&["generate", "-m", "x", "-p"][..], &["info"]] {
        let mut command = openelm(args);
        command.arg(bytes);
        fails(command, 2, &["UTF-8"]);
    }
    // A path may be.
    let mut command = openelm(&["generate", "-p", "x", "-m"]);
    command.arg(bytes);
    fails(command, 1, &["No such file"]);
}

#[test]
fn models_that_are_not_there() {
    let empty = Folder::new("empty");
    let nowhere = empty.join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    for command in [
        &["generate", "-p", "x", "-m"][..],
        &["info"],
        &["bench", "-n", "2", "-m"],
    ] {
        let on = |model| openelm(&[command, &[model]].concat());
        fails(on(nowhere), 1, &[nowhere, "No such file"]);
        fails(
            on(empty.name()),
            1,
            &[empty.name(), "config.json", "not found"],
        );
    }
    let config = Folder::new("config");
    config.file("config.json", small(64).to_json());
    fails(
        openelm(&["generate", "-p", "x", "-m", config.name()]),
        1,
        &[config.name(), "model.safetensors"],
    );
    config.file("model.safetensors", "");
    let file = config.join("model.safetensors");
    let damaged = [file.to_str().unwrap(), "not a safetensors file"];
    fails(
        openelm(&["generate", "-p", "x", "-m", config.name()]),
        1,
        &damaged,
    );
    fails(openelm(&["info", config.name()]), 1, &damaged);
    fails(openelm(&["bench", "-m", config.name()]), 1, &damaged);
    config.file("config.json", "{");
    let file = config.join("config.json");
    fails(
        openelm(&["info", config.name()]),
        1,
        &[file.to_str().unwrap()],
    );
}

/// What a file or its name says must not reach the terminal as it is.
#[cfg(unix)]
#[test]
fn names_with_line_breaks_stay_on_one_line() {
    let model = Folder::with_model("escapes", &small(64));
    fails(
        openelm(&["info", "/a\nb\u{1b}[31m"]),
        1,
        &[r"/a\nb\u{1b}[31m"],
    );
    let header = r#"{"a\nb\u001b[2J":{"dtype":"I8","shape":[0],"data_offsets":[0,0]}}"#;
    let bytes = [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat();
    model.file("model.safetensors", bytes);
    fails(
        openelm(&["info", model.name()]),
        1,
        &[r"`a\nb\u{1b}[2J`", "I8"],
    );
}

#[test]
fn prompts_that_cannot_be_used() {
    let folder = Folder::new("prompts");
    fails(generate(&["-p", ""]), 2, &["prompt", "empty"]);
    // Standard input is at its end.
    fails(generate(&[]), 2, &["prompt", "empty"]);
    fails(generate(&["-p", "-"]), 2, &["prompt", "empty"]);
    let empty = folder.file("empty.txt", "\n");
    fails(
        generate(&["--prompt-file", &empty]),
        2,
        &["prompt", "empty"],
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
        generate(&["--prompt-file", folder.name()]),
        1,
        &[folder.name(), "directory"],
    );
    #[cfg(target_os = "linux")]
    fails(
        generate(&["--prompt-file", "/dev/zero"]),
        1,
        &["/dev/zero", "larger than 64 MiB"],
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
    fails(bench("0"), 2, &["prompt", "empty"]);
    fails(bench("512"), 1, &["512 tokens", "context holds 512"]);
    let largest = usize::MAX.to_string();
    fails(bench(&largest), 1, &[&largest, "context holds 512"]);
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
fn tokenizers_that_are_missing_or_another_models() {
    let model = Folder::with_model("tokenizer", &small(2048));
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
        on(model.name(), &[]),
        1,
        &[&[model.name()], &missing[..]].concat(),
    );
    let nowhere = model.join("nowhere");
    let nowhere = nowhere.to_str().unwrap();
    fails(
        on(model.name(), &["--tokenizer", nowhere]),
        1,
        &[&[nowhere], &missing[..]].concat(),
    );
    let damaged = model.file("damaged.json", "{\"model\": 1}");
    fails(on(model.name(), &["--tokenizer", &damaged]), 1, &[&damaged]);
    // Of zeros the likeliest token is the first, which has no text.
    let tokenizer = ["--tokenizer", &tales()];
    assert_eq!(works(on(model.name(), &tokenizer)), "\n");
    let file = format!("{}/tokenizer.json", tales());
    assert_eq!(works(on(model.name(), &["--tokenizer", &file])), "\n");

    let model = Folder::with_model("vocabulary", &small(2047));
    let parts = ["tokenizer.json", "2048 ids", "vocabulary has 2047"];
    fails(on(model.name(), &tokenizer), 1, &parts);
}

#[test]
fn float16_is_refused_for_3b_before_anything_is_read() {
    let model = Folder::with_model("3b", &Preset::B3.config());
    let args = [
        "generate",
        "-m",
        model.name(),
        "-p",
        "x",
        "--dtype",
        "float16",
    ];
    fails(openelm(&args), 1, &["float16", "65504", "bfloat16"]);
}

#[cfg(target_os = "linux")]
#[test]
fn full_disks() {
    let full = || fs::File::options().write(true).open("/dev/full").unwrap();
    for args in [
        &["generate", "-q", "-p", "x", "-n", "4", "-m", &tales()][..],
        &[
            "generate",
            "-q",
            "--json",
            "-p",
            "x",
            "-n",
            "4",
            "-m",
            &tales(),
        ],
        &["info", "3B"],
        &["info", "3B", "--json"],
        &["completions", "zsh"],
        &["--help"],
    ] {
        let mut command = openelm(args);
        command.stdout(full());
        fails(command, 1, &["standard output", "No space left"]);
    }
    // Nobody can be told that nobody can be told.
    let mut command = generate(&["-p", "x", "-n", "4"]);
    command.stderr(full());
    assert!(works(command).ends_with('\n'));
    let mut command = openelm(&["info", "/nowhere"]);
    command.stderr(full());
    assert_eq!(run(command).code, Some(1));
    let mut command = openelm(&["--frobnicate"]);
    command.stderr(full());
    assert_eq!(run(command).code, Some(2));
}

#[cfg(unix)]
#[test]
fn readers_may_leave() {
    let long = ["-p", "Once upon a time", "-n", "200", "--ignore-eos"];
    for json in [&[][..], &["--json"]] {
        let mut command = generate(&[&long[..], json].concat());
        let streams = command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = streams.spawn().unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        drop(stdout);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    }
    // And who reads the errors may leave before them.
    let mut command = generate(&["-p", "x", "-n", "2"]);
    command.stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(child.stderr.take());
    assert_eq!(child.wait().unwrap().code(), Some(0));
}

/// Sends SIGINT once the first byte is there, and says how the command ended.
#[cfg(unix)]
fn interrupted(mut command: Command) -> Outcome {
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut bytes = vec![0];
    stdout.read_exact(&mut bytes).unwrap();
    let id = child.id().to_string();
    let kill = Command::new("kill").args(["-INT", &id]).status().unwrap();
    assert!(kill.success());
    stdout.read_to_end(&mut bytes).unwrap();
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code(),
        stdout: String::from_utf8(bytes).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

#[cfg(unix)]
#[test]
fn control_c_keeps_the_text_so_far() {
    let long = ["-p", "Once upon a time", "-n", "500", "--ignore-eos"];
    let whole = works(generate(&[&long[..], &["-q"]].concat()));
    let quiet = interrupted(generate(&[&long[..], &["-q"]].concat()));
    assert_eq!(quiet.code, Some(130), "{quiet:?}");
    assert_eq!(quiet.stderr, "openelm: interrupted\n");
    let text = quiet.stdout.strip_suffix('\n').unwrap();
    assert!(!text.is_empty() && whole.starts_with(text) && whole.len() > text.len() + 1);

    let told = interrupted(generate(&long));
    assert_eq!(told.code, Some(130), "{told:?}");
    let lines: Vec<_> = told.stderr.lines().collect();
    assert_eq!(lines.len(), 2, "{told:?}");
    assert!(lines[0].starts_with("[interrupted] "), "{told:?}");
    assert_eq!(lines[1], "openelm: interrupted");

    let json = interrupted(generate(&[&long[..], &["-q", "--json"]].concat()));
    assert_eq!(json.code, Some(130), "{json:?}");
    let last = parse(json.stdout.lines().last().unwrap());
    assert_eq!(last["reason"], "cancelled");
}

/// A benchmark prints nothing until it is over, so this one is interrupted at its second
/// measurement by the clock; wherever it is then, it must not hang.
#[cfg(unix)]
#[test]
fn control_c_ends_a_benchmark() {
    use std::{thread::sleep, time::Duration};
    let args = ["--prompt-tokens", "300", "-n", "100", "--repeat", "1000"];
    let mut command = openelm(&[&["bench", "-m", &tales()], &args[..]].concat());
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let id = child.id().to_string();
    sleep(Duration::from_secs(3));
    assert!(
        Command::new("kill")
            .args(["-INT", &id])
            .status()
            .unwrap()
            .success()
    );
    for _ in 0..300 {
        if child.try_wait().unwrap().is_some() {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(130));
            assert_eq!(output.stdout, b"");
            assert_eq!(output.stderr, b"openelm: interrupted\n");
            return;
        }
        sleep(Duration::from_millis(100));
    }
    child.kill().unwrap();
    panic!("still running");
}

#[test]
fn text_goes_to_stdout_and_all_else_to_stderr() {
    let args = ["-p", "Once upon a time", "-n", "11"];
    let outcome = run(generate(&args));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(
        outcome.stdout,
        " there lived a little girl who had been a little girl\n"
    );
    // No progress bar, no colour: the statistics are all there is.
    assert_eq!(outcome.stderr.lines().count(), 1, "{outcome:?}");
    assert!(
        outcome
            .stderr
            .starts_with("[--max-tokens reached] prompt: 6 tokens, ")
    );
    assert!(!outcome.stderr.contains(['\u{1b}', '\r']), "{outcome:?}");
    assert!(!outcome.stderr.contains("seed"), "{outcome:?}");

    let quiet = run(generate(&[&args[..], &["--quiet"]].concat()));
    assert_eq!(
        (quiet.stdout, quiet.stderr),
        (outcome.stdout, String::new())
    );

    // A drawn text tells the seed that gives it again.
    let drawn = run(generate(&[&args[..], &["--temp", "0.9"]].concat()));
    let (_, seed) = drawn.stderr.trim().rsplit_once("seed: ").unwrap();
    let again = works(generate(
        &[&args[..], &["--temp", "0.9", "--seed", seed]].concat(),
    ));
    assert_eq!(again, drawn.stdout);
    let stopped = works(generate(
        &[&args[..], &["--stop", "xyz", "--stop", "girl"]].concat(),
    ));
    assert_eq!(stopped, " there lived a little \n");
}

#[test]
fn prompts_come_from_arguments_files_and_standard_input() {
    let folder = Folder::new("sources");
    let args = ["-n", "8", "-q"];
    let expected = works(generate(&[&args[..], &["-p", "The old woman"]].concat()));
    for (name, text) in [
        ("plain", "The old woman"),
        ("unix", "The old woman\n"),
        ("dos", "The old woman\r\n"),
    ] {
        let file = folder.file(name, text);
        let found = works(generate(&[&args[..], &["--prompt-file", &file]].concat()));
        assert_eq!(found, expected, "{name}");
        for dash in [&[][..], &["-p", "-"]] {
            let mut command = generate(&[&args[..], dash].concat());
            command.stdin(fs::File::open(&file).unwrap());
            assert_eq!(works(command), expected, "{name}");
        }
    }
    // Only the last line break is no part of the prompt.
    let file = folder.file("two", "The old woman\n\n");
    let found = works(generate(&[&args[..], &["--prompt-file", &file]].concat()));
    let direct = works(generate(&[&args[..], &["-p", "The old woman\n"]].concat()));
    assert_eq!(found, direct);
    let mut command = generate(&args);
    command.stdin(fs::File::open(folder.file("latin", b"caf\xe9")).unwrap());
    fails(command, 1, &["standard input", "not UTF-8", "byte 3"]);
}

#[test]
fn json_lines_tell_what_the_text_does() {
    let args = ["-p", "Once upon a time", "-n", "20", "-q"];
    let plain = works(generate(&args));
    let lines = works(generate(
        &[&args[..], &["--json", "--logprobs", "5"]].concat(),
    ));
    let events: Vec<_> = lines.lines().map(parse).collect();
    assert_eq!(events.len(), 1 + 20 + 1);
    assert_eq!(
        events[0],
        json!({ "event": "prefill", "processed": 6, "total": 6 })
    );
    let mut text = String::new();
    for event in &events[1..21] {
        assert_eq!(event["event"], "token");
        text += event["text"].as_str().unwrap();
        let top = event["top_logprobs"].as_array().unwrap();
        assert_eq!(top.len(), 5);
        // Greedy takes the first of the list.
        assert_eq!(top[0]["id"], event["id"]);
        assert_eq!(top[0]["logprob"], event["logprob"]);
        let logprobs: Vec<_> = top.iter().map(|t| t["logprob"].as_f64().unwrap()).collect();
        assert!(logprobs.is_sorted_by(|a, b| a >= b) && logprobs[0] <= 0.0);
        assert!(top.iter().all(|t| !t["piece"].as_str().unwrap().is_empty()));
    }
    assert_eq!(text + "\n", plain);
    assert_eq!(events[1]["top_logprobs"][0]["piece"], "▁there");
    let end = &events[21];
    assert_eq!(
        (&end["event"], &end["reason"]),
        (&json!("finished"), &json!("length"))
    );
    assert_eq!(
        (&end["prompt_tokens"], &end["generated_tokens"]),
        (&json!(6), &json!(20))
    );
    assert!(end["peak_memory_bytes"].as_u64().unwrap() > 9_000_000);
    for key in [
        "prefill_seconds",
        "decode_seconds",
        "decode_tokens_per_second",
    ] {
        assert!(end[key].as_f64().unwrap() > 0.0, "{key}");
    }

    let lines = works(generate(&[&args[..], &["--json"]].concat()));
    let events: Vec<_> = lines.lines().map(parse).collect();
    assert!(
        events
            .iter()
            .all(|event| event.get("top_logprobs").is_none())
    );
}

#[test]
fn every_type_writes_text() {
    for dtype in ["float32", "float16", "bfloat16", "fp16", "BF16"] {
        let args = ["-p", "Once upon a time", "-n", "4", "--dtype", dtype];
        assert_eq!(works(generate(&args)), " there lived a little\n", "{dtype}");
    }
}

#[test]
fn info_knows_the_sizes_and_reads_folders() {
    for (name, parameters, grouped) in [
        ("270M", 271_527_168_u64, "271,527,168"),
        ("450M", 457_179_136, "457,179,136"),
        ("1_1B", 1_079_891_456, "1,079,891,456"),
        ("3B", 3_036_647_424, "3,036,647,424"),
        (&tales(), 2_497_344, "2,497,344"),
    ] {
        let table = works(openelm(&["info", name]));
        assert!(
            table.contains(&format!("parameters            {grouped}\n")),
            "{table}"
        );
        let json = works(openelm(&["info", name, "--json"]));
        assert_eq!(json.lines().count(), 1);
        let json = parse(&json);
        assert_eq!(json["parameters"], parameters);
        let layers = json["layers"].as_array().unwrap();
        assert_eq!(json["num_transformer_layers"], layers.len());
        let stored = if parameters == 2_497_344 {
            json!("bfloat16")
        } else {
            Value::Null
        };
        assert_eq!(json["stored_dtype"], stored);
        // A layer's row each.
        assert!(table.lines().count() > layers.len() + 10, "{table}");
    }
    fails(openelm(&["info", "7B"]), 1, &["7B"]);
}

#[test]
fn bench_measures_the_model_of_a_folder() {
    let args = ["--prompt-tokens", "3,9", "-n", "3", "--repeat", "1"];
    let on = |extra: &[&str]| openelm(&[&["bench", "-m", &tales()], &args[..], extra].concat());
    let table = works(on(&[]));
    assert!(table.starts_with("2,497,344 parameters in "), "{table}");
    assert!(table.lines().count() == 5, "{table}");
    let json = works(on(&["--json"]));
    assert_eq!(json.lines().count(), 1);
    let json = parse(&json);
    assert_eq!(json["parameters"], 2_497_344);
    assert_eq!(json["generated_tokens"], 3);
    let runs = json["runs"].as_array().unwrap();
    assert_eq!(runs.len(), 2);
    for (run, tokens) in runs.iter().zip([3, 9]) {
        assert_eq!(run["prompt_tokens"], tokens);
        for key in [
            "prefill_tokens_per_second",
            "decode_tokens_per_second",
            "first_token_seconds",
        ] {
            assert!(run[key].as_f64().unwrap() > 0.0, "{key}");
        }
    }
}

#[test]
fn completions_know_the_commands() {
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

/// The benchmark refuses what `generate` refuses, before it draws 6 GB of weights.
#[test]
fn a_benchmark_of_3b_in_float16_is_refused() {
    let output = Command::new(env!("CARGO_BIN_EXE_openelm"))
        .args(["bench", "--preset", "3B", "--dtype", "float16"])
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(stderr.contains("use bfloat16"), "{stderr}");
}
