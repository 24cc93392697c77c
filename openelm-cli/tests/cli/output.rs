//! Contents of standard output and standard error.

use std::fs;

use openelm_testing::{TempDir, encodings, fails, run, works};
use serde_json::{Value, json};

use crate::tool::{generate, openelm, parse, tales};

#[test]
fn text_goes_to_stdout_and_statistics_to_stderr() {
    let args = ["-p", "Once upon a time", "-n", "11"];
    let outcome = run(generate(&args));
    assert_eq!(outcome.code, Some(0), "{outcome:?}");
    assert_eq!(
        outcome.stdout,
        " there lived a little girl who had been a little girl\n"
    );
    // No progress bar and no colours: only the statistics.
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

    // The statistics of sampled text include the seed.
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
fn reads_prompts_from_arguments_files_and_stdin() {
    let folder = TempDir::new();
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
    for (name, bytes) in encodings("The old woman\r\n") {
        let file = folder.file(name, bytes);
        let found = works(generate(&[&args[..], &["--prompt-file", &file]].concat()));
        assert_eq!(found, expected, "{name}");
        let mut command = generate(&args);
        command.stdin(fs::File::open(&file).unwrap());
        assert_eq!(works(command), expected, "{name}");
    }
    let marked = ["-p", "\u{feff}The old woman"];
    assert_eq!(works(generate(&[&args[..], &marked].concat())), expected);
    // Only the last line break is removed from the prompt.
    let file = folder.file("two", "The old woman\n\n");
    let found = works(generate(&[&args[..], &["--prompt-file", &file]].concat()));
    let direct = works(generate(&[&args[..], &["-p", "The old woman\n"]].concat()));
    assert_eq!(found, direct);
    let mut command = generate(&args);
    command.stdin(fs::File::open(folder.file("latin", b"caf\xe9")).unwrap());
    fails(command, 1, &["standard input", "not UTF-8", "byte 3"]);
}

#[test]
fn json_events_match_the_text() {
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
        // Greedy decoding picks the first of the list.
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
fn every_dtype_generates() {
    for dtype in ["float32", "float16", "bfloat16", "fp16", "BF16"] {
        let args = ["-p", "Once upon a time", "-n", "4", "--dtype", dtype];
        assert_eq!(works(generate(&args)), " there lived a little\n", "{dtype}");
    }
}

#[test]
fn info_describes_presets_and_folders() {
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
        // One row per layer.
        assert!(table.lines().count() > layers.len() + 10, "{table}");
    }
    fails(openelm(&["info", "7B"]), 1, &["7B"]);
}

#[test]
fn bench_measures_a_model_folder() {
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
    for key in ["active_bytes", "peak_bytes", "cache_bytes"] {
        assert!(json[key].is_u64(), "{key}: {json}");
    }
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
fn options_of_sampling_shape_the_text() {
    let text = |more: &[&str]| {
        let args = ["-p", "Once upon a time", "-n", "11", "-q"];
        works(generate(&[&args[..], more].concat()))
    };
    let forced = text(&["--forced-prefix", " in a castle"]);
    assert!(forced.starts_with(" in a castle"), "{forced}");
    let banned = text(&["--banned-string", "girl", "--banned-string", "had"]);
    assert!(
        !banned.contains("girl") && !banned.contains("had"),
        "{banned}"
    );
    assert_eq!(
        text(&["--extra-eos-token", "\u{2581}girl"]),
        " there lived a little\n"
    );
    let biased = text(&["--logit-bias", "549-inf"]);
    assert!(!biased.contains("there"), "{biased}");
    let args = ["-p", "The", "-n", "1", "--json", "--logprobs", "5"];
    let sampler = ["--temp=1", "--top-k=2", "--logprobs-of=sampler"];
    let events = works(generate(&[&args[..], &sampler].concat()));
    let token = events
        .lines()
        .map(parse)
        .find(|event| event["event"] == "token");
    assert_eq!(token.unwrap()["top_logprobs"].as_array().unwrap().len(), 2);
}
