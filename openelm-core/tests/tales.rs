//! Trained weights reveal errors that random weights hide: the bundled model in `examples/tales`,
//! and a smaller one in `fixtures/tales`. `reference.json` holds mlx-lm 0.32.2's results for both
//! in f32 on a CPU (`parity/reference.py`).
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::fs;

use mlx_rs::{Array, ops::indexing::TryIndexOp};
use openelm_core::{
    Config, Dtype, Model, Tokenizer,
    internal::{ReadOptions, Weights},
    weights::{Checkpoint, model_folder},
};
use openelm_testing::repository;
use serde::Deserialize;
use serde_json::Value;

#[derive(Deserialize)]
struct Reference {
    continuations: Vec<Continuation>,
    fairytales_val: HeldOut,
}

#[derive(Deserialize)]
struct Continuation {
    prompt: String,
    prompt_ids: Vec<u32>,
    greedy_ids: Vec<u32>,
    greedy_text: String,
    first_top_ids: Vec<u32>,
    first_top_logprobs: Vec<f64>,
}

#[derive(Deserialize)]
struct HeldOut {
    documents: usize,
    window: usize,
    tokens: usize,
    nats: f64,
    bits_per_byte: f64,
    last_tokens: usize,
    last_nats: f64,
}

const MODELS: [&str; 2] = ["examples/tales", "openelm-core/tests/fixtures/tales"];

#[test]
fn greedy_tokens_match_mlx_lm() {
    for folder in MODELS {
        let model = model(folder);
        let continuations = reference(folder).continuations;
        assert_eq!(continuations.len(), 8);
        for expected in continuations {
            let mut cache = model.cache();
            let mut ids = expected.prompt_ids;
            let mut greedy = Vec::new();
            for _ in 0..64 {
                let hidden = model.hidden(&tokens(&ids), &mut cache).unwrap();
                let logprobs = logprobs(&model, &hidden);
                let last = logprobs.chunks(model.config().vocab_size()).last().unwrap();
                let token = argmax(last);
                greedy.push(token);
                ids = vec![token];
            }
            assert_eq!(greedy, expected.greedy_ids, "{folder}: {}", expected.prompt);
        }
    }
}

#[test]
fn first_logprobs_match_mlx_lm() {
    for folder in MODELS {
        let model = model(folder);
        for expected in reference(folder).continuations {
            let hidden = model
                .hidden(&tokens(&expected.prompt_ids), &mut model.cache())
                .unwrap();
            let logprobs = logprobs(&model, &hidden);
            let last = logprobs.chunks(model.config().vocab_size()).last().unwrap();
            let mut order: Vec<u32> = (0..last.len() as u32).collect();
            order.sort_by(|&a, &b| last[b as usize].total_cmp(&last[a as usize]));
            assert_eq!(order[..8], expected.first_top_ids, "{}", expected.prompt);
            assert_eq!(expected.first_top_logprobs.len(), 8);
            for (&id, logprob) in order.iter().zip(expected.first_top_logprobs) {
                let found = last[id as usize];
                assert!(
                    (found - logprob).abs() <= 1e-4,
                    "{:?}, token {id}: expected {logprob}, found {found}",
                    expected.prompt
                );
            }
        }
    }
}

#[test]
fn tokenization_matches_mlx_lm() {
    for folder in MODELS {
        let tokenizer = tokenizer(folder);
        for expected in reference(folder).continuations {
            let prompt = tokenizer.encode_prompt(&expected.prompt).unwrap();
            assert_eq!(prompt, expected.prompt_ids, "{}", expected.prompt);
            let mut detokenizer = tokenizer.detokenizer(&prompt);
            let text: String = expected
                .greedy_ids
                .iter()
                .map(|&id| detokenizer.push(id).unwrap())
                .collect();
            assert_eq!(text.trim_start(), expected.greedy_text.trim_start());
        }
    }
}

/// Negative log-likelihood of `text` and EOS in separate windows, each of which also predicts the
/// token after it, and the number of predicted tokens.
fn nats(model: &Model, tokenizer: &Tokenizer, text: &str, window: usize) -> (f64, usize) {
    let mut ids = tokenizer.encode_prompt(text).unwrap();
    ids.push(tokenizer.eos_id());
    let mut nats = 0.0;
    for start in (0..ids.len() - 1).step_by(window) {
        let end = ids.len().min(start + window + 1);
        let (inputs, targets) = (&ids[start..end - 1], &ids[start + 1..end]);
        let hidden = model.hidden(&tokens(inputs), &mut model.cache()).unwrap();
        let logprobs = logprobs(model, &hidden);
        let rows = logprobs.chunks(model.config().vocab_size());
        for (row, &target) in rows.zip(targets) {
            nats -= row[target as usize];
        }
    }
    (nats, ids.len() - 1)
}

fn reference(folder: &str) -> Reference {
    let text = fs::read(repository(folder).join("reference.json")).unwrap();
    serde_json::from_slice(&text).unwrap()
}

fn model(folder: &str) -> Model {
    let folder = model_folder(repository(folder)).unwrap();
    let config = Config::load(&folder).unwrap();
    let checkpoint = Checkpoint::open(&folder).unwrap();
    checkpoint.check(&config).unwrap();
    let weights = Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype: Dtype::Float32,
            keep_quantized: false,
        },
        &mut |_, _| {},
    )
    .unwrap();
    Model::new(config, weights, Dtype::Float32).unwrap()
}

fn tokenizer(folder: &str) -> Tokenizer {
    Tokenizer::from_file(repository(folder).join("tokenizer.json")).unwrap()
}

fn tokens(ids: &[u32]) -> Array {
    Array::from_slice(ids, &[1, ids.len() as i32])
}

/// Log-probabilities `[L, V]` of the first sequence of hidden states `[1, L, D]`.
fn logprobs(model: &Model, hidden: &Array) -> Vec<f64> {
    let logits = model.logits(&hidden.try_index(0).unwrap()).unwrap();
    let all = logits.logsumexp_axis(-1, true).unwrap();
    let logprobs = logits
        .subtract(&all)
        .unwrap()
        .to_vec_exact::<f32>()
        .unwrap();
    logprobs.into_iter().map(f64::from).collect()
}

fn argmax(values: &[f64]) -> u32 {
    let largest = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]));
    largest.unwrap() as u32
}

mod external_data {
    use openelm_testing::external_data;

    use super::*;

    #[test]
    #[ignore = "needs OPENELM_TEST_DATA"]
    fn loss_of_one_held_out_document_matches_mlx_lm() {
        let tales = held_out();
        for folder in MODELS {
            let expected = reference(folder).fairytales_val;
            let (model, tokenizer) = (model(folder), tokenizer(folder));
            let (found, predicted) = nats(&model, &tokenizer, tales.last().unwrap(), 256);
            assert_eq!(predicted, expected.last_tokens);
            assert!((found - expected.last_nats).abs() < 0.01, "{found} nats");
        }
    }

    #[test]
    #[ignore = "needs OPENELM_TEST_DATA; takes a minute"]
    fn loss_of_all_held_out_documents_matches_mlx_lm() {
        let tales = held_out();
        for folder in MODELS {
            let (model, tokenizer) = (model(folder), tokenizer(folder));
            let expected = reference(folder).fairytales_val;
            let (mut found, mut predicted) = (0.0, 0);
            for tale in &tales {
                let (of_tale, tokens) = nats(&model, &tokenizer, tale, expected.window);
                found += of_tale;
                predicted += tokens;
            }
            assert_eq!(
                (tales.len(), predicted),
                (expected.documents, expected.tokens)
            );
            assert!((found - expected.nats).abs() < 0.1, "{found} nats");
            let bytes: usize = tales.iter().map(String::len).sum();
            let bits_per_byte = found / std::f64::consts::LN_2 / bytes as f64;
            assert!(
                (bits_per_byte - expected.bits_per_byte).abs() < 1e-5,
                "{bits_per_byte} bits per byte"
            );
        }
    }

    /// The texts of `fairytales_val`.
    fn held_out() -> Vec<String> {
        let text = fs::read_to_string(external_data().join("corpus/fairytales_val.jsonl")).unwrap();
        let text_of = |line| {
            let document: Value = serde_json::from_str(line).unwrap();
            document["text"].as_str().unwrap().to_owned()
        };
        text.lines().map(text_of).collect()
    }
}
