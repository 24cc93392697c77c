//! Perplexity of documents in files.

use openelm_core::{
    Error,
    evaluate::{Perplexity, PerplexityOptions, Scorer, WindowOptions, perplexity},
};
use openelm_testing::{TempDir, gzip, tales};
use serde_json::{Value, json};

use crate::models::{expected, load, words};

fn measure(files: &[&str], folder: &TempDir, options: &PerplexityOptions) -> Perplexity {
    let model = load();
    let mut scorer = Scorer::new(&model).unwrap();
    let files: Vec<_> = files.iter().map(|name| folder.join(name)).collect();
    perplexity(&mut scorer, &files, options, |_| Ok::<_, Error>(())).unwrap()
}

#[track_caller]
fn assert_near(found: f64, expected: f64) {
    assert!(
        (found - expected).abs() < 1e-5 * expected.abs(),
        "{found} {expected}"
    );
}

#[test]
fn counts_nats_bytes_and_tokens_of_all_documents() {
    let model = load();
    let folder = TempDir::new();
    let texts = [
        words(30),
        "Es war einmal </s> ein König.".to_owned(),
        words(80),
    ];
    let rows = |texts: &[String]| -> String {
        let rows = texts.iter().map(|text| json!({ "text": text }));
        rows.map(|row| format!("{row}\n")).collect()
    };
    folder.write("a.jsonl", rows(&texts[..2]));
    folder.write(
        "b.jsonl.gz",
        gzip(rows(&[String::new(), texts[2].clone()]).as_bytes()),
    );
    for add_eos in [false, true] {
        let options = PerplexityOptions {
            add_eos,
            ..PerplexityOptions::default()
        };
        let found = measure(&["a.jsonl", "b.jsonl.gz"], &folder, &options);
        let mut sums = Vec::new();
        for text in &texts {
            // Special tokens are plain text.
            let ids = text.split("</s>").collect::<Vec<_>>().join("<\u{0}/s>");
            let mut ids = model
                .tokenizer()
                .encode_plain_prompt(&ids.replace('\u{0}', ""))
                .unwrap();
            if add_eos {
                ids.push(model.tokenizer().eos_id());
            }
            let logprobs = expected(&model, &ids[..1], &ids[1..]).0;
            let nats: f64 = logprobs.iter().map(|&x| -f64::from(x)).sum();
            sums.push((nats, ids.len() - 1));
        }
        if add_eos {
            // EOS alone: the empty document.
            let logprobs = expected(&model, &[1], &[2]).0;
            sums.push((-f64::from(logprobs[0]), 1));
        }
        let nats: f64 = sums.iter().map(|sum| sum.0).sum();
        let tokens: usize = sums.iter().map(|sum| sum.1).sum();
        let bytes: usize = texts.iter().map(String::len).sum();
        assert_eq!(
            (found.documents, found.tokens, found.bytes),
            (sums.len(), tokens, bytes)
        );
        assert_near(found.nats, nats);
        assert_near(found.perplexity(), (nats / tokens as f64).exp());
        assert_near(found.bits_per_byte(), nats / 2_f64.ln() / bytes as f64);
        let error = found.standard_error().unwrap();
        let mean = nats / tokens as f64;
        let squares: f64 = sums
            .iter()
            .map(|(sum, n)| (sum - mean * *n as f64).powi(2))
            .sum();
        let count = sums.len() as f64;
        assert_near(
            error,
            (squares * count / (count - 1.0)).sqrt() / tokens as f64,
        );
        assert_near(
            found.perplexity_standard_error().unwrap(),
            error * found.perplexity(),
        );
    }
}

#[test]
fn a_single_document_has_the_error_of_its_windows() {
    let folder = TempDir::new();
    folder.write("a.txt", words(100));
    let mut options = PerplexityOptions::default();
    assert_eq!(
        measure(&["a.txt"], &folder, &options).standard_error(),
        None
    );
    options.windows = WindowOptions {
        window: Some(25),
        stride: None,
    };
    let found = measure(&["a.txt"], &folder, &options);
    assert_eq!(found.documents, 1);
    assert!(found.standard_error().unwrap() > 0.0);
}

#[test]
fn files_without_text_are_refused() {
    let folder = TempDir::new();
    folder.write("a.jsonl", "{\"text\": \"\"}\n");
    let model = load();
    let mut scorer = Scorer::new(&model).unwrap();
    let files = [folder.join("a.jsonl")];
    let options = PerplexityOptions::default();
    let error = perplexity(&mut scorer, &files, &options, |_| Ok::<_, Error>(())).unwrap_err();
    let expected = format!("files: expected text in {}, found none", files[0].display());
    assert_eq!(error.to_string(), expected);
}

/// The nats of `of_network` in bench/bits_per_byte.py, which runs mlx-lm, for the texts of
/// reference.json and all of them as one text of 588 tokens.
#[test]
fn separate_windows_equal_bits_per_byte_py() {
    let reference = std::fs::read_to_string(tales().join("reference.json")).unwrap();
    let reference: Value = serde_json::from_str(&reference).unwrap();
    let texts = reference["continuations"].as_array().unwrap().iter();
    let text = |case: &Value, key: &str| case[key].as_str().unwrap().to_owned();
    let mut texts: Vec<_> = texts
        .map(|case| text(case, "prompt") + &text(case, "greedy_text"))
        .collect();
    texts.push(texts.join("\n"));
    let rows = texts.iter().map(|text| json!({ "text": text }).to_string());
    let folder = TempDir::new();
    folder.write("valid.jsonl", rows.collect::<Vec<_>>().join("\n"));
    let options = PerplexityOptions {
        windows: WindowOptions {
            window: Some(256),
            stride: None,
        },
        add_eos: true,
        ..PerplexityOptions::default()
    };
    let found = measure(&["valid.jsonl"], &folder, &options);
    assert_eq!(
        (found.documents, found.tokens, found.bytes),
        (9, 1173, 4005)
    );
    assert_near(found.nats, 2_828.365_890_502_93);
    assert_near(found.bits_per_byte(), 1.018_843_806_254_200_7);
}
