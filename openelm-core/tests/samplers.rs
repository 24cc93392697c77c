//! Samplers compared with mlx-lm's functions in `fixtures/samplers` (from `parity/samplers.py`), or
//! in the folder that OPENELM_SAMPLERS names.
#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{collections::BTreeMap, env, fs, path::PathBuf};

use mlx_rs::Array;
use openelm_core::{
    generation::Sampling,
    internal::{Sampler, SamplerVocabulary},
};
use serde::Deserialize;

#[derive(Deserialize)]
struct Fixture {
    end_token: u32,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    options: Options,
    /// The case is of filters, and not of logits processors.
    filters: bool,
    tokens: Vec<u32>,
    logits: Vec<f32>,
    /// Without excluded tokens.
    expected: Vec<Option<f32>>,
}

/// The options of a case.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Options {
    /// Negative infinity is null.
    #[serde(default)]
    logit_bias: BTreeMap<u32, Option<f32>>,
    repetition_penalty: Option<f32>,
    repetition_context_size: Option<usize>,
    presence_penalty: Option<f32>,
    presence_context_size: Option<usize>,
    frequency_penalty: Option<f32>,
    frequency_context_size: Option<usize>,
    top_k: Option<usize>,
    top_p: Option<f32>,
    min_p: Option<f32>,
    xtc_probability: Option<f32>,
    xtc_threshold: Option<f32>,
}

impl Options {
    fn sampling(&self, temperature: f32) -> Sampling {
        let d = Sampling::default();
        let bias = |value: Option<f32>| value.unwrap_or(f32::NEG_INFINITY);
        let logit_bias = self
            .logit_bias
            .iter()
            .map(|(id, value)| (*id, bias(*value)));
        Sampling {
            temperature,
            logit_bias: logit_bias.collect(),
            repetition_penalty: self.repetition_penalty.unwrap_or(d.repetition_penalty),
            repetition_context_size: self.repetition_context_size,
            presence_penalty: self.presence_penalty.unwrap_or(0.0),
            presence_context_size: self
                .presence_context_size
                .unwrap_or(d.presence_context_size),
            frequency_penalty: self.frequency_penalty.unwrap_or(0.0),
            frequency_context_size: self
                .frequency_context_size
                .unwrap_or(d.frequency_context_size),
            top_k: self.top_k.unwrap_or(d.top_k),
            top_p: self.top_p.unwrap_or(d.top_p),
            min_p: self.min_p.unwrap_or(d.min_p),
            xtc_probability: self.xtc_probability.unwrap_or(0.0),
            xtc_threshold: self.xtc_threshold.unwrap_or(d.xtc_threshold),
            seed: Some(0),
            ..d
        }
    }
}

#[test]
fn logits_match_mlx_lm() {
    let fixture = read();
    assert!(fixture.cases.len() > 50);
    let mut excluded = 0;
    for case in &fixture.cases {
        let size = case.logits.len();
        let vocabulary = SamplerVocabulary {
            size,
            tokenizer: None,
            end_tokens: &[fixture.end_token],
        };
        // Greedy choices have no filters.
        let sampling = case.options.sampling(f32::from(u8::from(case.filters)));
        // Tokens of the prompt and of the text are the same to a sampler.
        let (prompt, text) = case.tokens.split_at(case.tokens.len() / 2);
        let mut sampler = Sampler::new(&sampling, &vocabulary, prompt).unwrap();
        text.iter().for_each(|&id| sampler.accept(id));
        let logits = Array::from_slice(&case.logits, &[size as i32]);
        let choice = sampler.choice(&logits, None).unwrap();
        let found = choice.logits().unwrap().to_vec_exact::<f32>().unwrap();
        for (id, (found, expected)) in found.iter().zip(&case.expected).enumerate() {
            match expected {
                Some(expected) => {
                    let difference = (found - expected).abs();
                    let options = &case.options;
                    assert!(
                        difference < 1e-5,
                        "{options:?}, {id}: {found}, not {expected}"
                    );
                }
                None => {
                    assert_eq!(*found, f32::NEG_INFINITY, "{:?}, {id}", case.options);
                    excluded += 1;
                }
            }
        }
        let token = choice.token.item_exact::<u32>() as usize;
        assert!(case.expected[token].is_some(), "{:?}", case.options);
    }
    assert!(excluded > 100, "{excluded}");
}

fn read() -> Fixture {
    let fixtures = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/samplers");
    let folder = env::var_os("OPENELM_SAMPLERS").map_or(fixtures, PathBuf::from);
    let text = fs::read_to_string(folder.join("cases.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}
