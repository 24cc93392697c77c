//! Generates texts under the schemas of `parity/constraints.py`, which then validates them: 25
//! texts per schema at temperature 1, from an untrained model and from the bundled one.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::unwrap_used,
    reason = "tests may panic and report"
)]

use std::{fs, path::PathBuf, time::Instant};

use openelm_core::{
    Config, Dtype, LanguageModel, LoadOptions, Model, Tokenizer,
    constraint::ConstraintKind,
    generation::{Event, FinishReason, GenerateOptions, Sampling},
    internal::random_weights,
};
use openelm_testing::repository;
use serde_json::{Value, json};

const TEXTS: u64 = 25;
const MAX_TOKENS: usize = 200;

#[test]
#[ignore = "needs schemas from Python: see parity/constraints.py"]
fn texts_under_schemas_are_written_for_python() {
    let folder = std::env::var_os("OPENELM_CONSTRAINTS").expect("names the folder");
    let folder = PathBuf::from(folder);
    let schemas = fs::read_to_string(folder.join("schemas.json")).unwrap();
    let schemas: Vec<Value> = serde_json::from_str(&schemas).unwrap();
    let models = [
        ("untrained", untrained()),
        (
            "tales",
            LanguageModel::load(repository("examples/tales"), &LoadOptions::default()).unwrap(),
        ),
    ];
    let mut results = Vec::new();
    let start = Instant::now();
    for (index, schema) in schemas.iter().enumerate() {
        for seed in 0..TEXTS {
            let (name, model) = &models[seed as usize % 2];
            let options = GenerateOptions {
                max_tokens: MAX_TOKENS,
                sampling: Sampling {
                    temperature: 1.0,
                    seed: Some(seed + 1_000 * index as u64),
                    ..Sampling::default()
                },
                constraint: Some(ConstraintKind::JsonSchema(schema.to_string())),
                ..GenerateOptions::default()
            };
            let mut text = String::new();
            let mut ended = false;
            for event in model.generate("Once upon a time", options).unwrap() {
                match event.unwrap() {
                    Event::Token(token) => text += &token.text,
                    Event::Finished { reason, .. } => ended = reason == FinishReason::Eos,
                    Event::Prefill { .. } => {}
                }
            }
            results.push(json!({"schema": index, "model": name, "text": text, "ended": ended}));
        }
    }
    println!(
        "{} texts in {:.0} s",
        results.len(),
        start.elapsed().as_secs_f64()
    );
    fs::write(folder.join("texts.json"), json!(results).to_string()).unwrap();
}

/// A small model with random weights and the bundled tokenizer.
fn untrained() -> LanguageModel {
    let folder = repository("examples/tales");
    let text = fs::read_to_string(folder.join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    config["model_dim"] = json!(64);
    config["head_dim"] = json!(16);
    let config = Config::from_json(&config.to_string(), "config.json").unwrap();
    let weights = random_weights(&config, Dtype::Float32, 3).unwrap();
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    LanguageModel::new(model, Tokenizer::find(&folder, None).unwrap()).unwrap()
}
