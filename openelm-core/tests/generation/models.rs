//! The tales model, its references, and generations run to their ends.

use mlx_rs::{Array, ops::indexing::TryIndexOp};
use openelm_core::{
    Config, Dtype, LanguageModel, LoadOptions, Model, Tokenizer,
    generation::{Event, FinishReason, GenerateOptions, Generation, Sampling, Stats, Token},
    internal::{ReadOptions, Weights},
    weights::Checkpoint,
};
use openelm_testing::tales;
use serde_json::Value;

pub(crate) const PROMPT: &str = "Once upon a time";

pub(crate) fn load() -> LanguageModel {
    load_as(Dtype::Float32)
}

pub(crate) fn load_as(dtype: Dtype) -> LanguageModel {
    let options = LoadOptions {
        dtype: Some(dtype),
        ..LoadOptions::default()
    };
    LanguageModel::load(tales(), &options).unwrap()
}

/// The tales model with some keys of its `config.json` replaced.
pub(crate) fn load_with(keys: &[(&str, u64)]) -> LanguageModel {
    let text = std::fs::read_to_string(tales().join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in keys {
        json[key] = (*value).into();
    }
    let config = Config::from_json(&json.to_string(), "config.json").unwrap();
    let checkpoint = Checkpoint::open(tales()).unwrap();
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
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    let tokenizer = Tokenizer::find(&tales(), None).unwrap();
    LanguageModel::new(model, tokenizer).unwrap()
}

/// The prompts of `reference.json`, with the ids and text that mlx-lm continues them with.
pub(crate) fn references() -> Vec<(String, Vec<u32>, String)> {
    let text = std::fs::read_to_string(tales().join("reference.json")).unwrap();
    let json: Value = serde_json::from_str(&text).unwrap();
    let cases = json["continuations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|case| {
            let ids = case["greedy_ids"].as_array().unwrap().iter();
            (
                case["prompt"].as_str().unwrap().to_owned(),
                ids.map(|id| id.as_u64().unwrap() as u32).collect(),
                case["greedy_text"].as_str().unwrap().to_owned(),
            )
        });
    cases.collect()
}

pub(crate) fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        max_tokens,
        ..GenerateOptions::default()
    }
}

pub(crate) fn warm(seed: u64) -> Sampling {
    Sampling {
        temperature: 1.0,
        seed: Some(seed),
        ..Sampling::default()
    }
}

/// A generation run to its end.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// Tokens of the prompt read after each chunk, and the prompt's length.
    pub(crate) prefill: Vec<(usize, usize)>,
    pub(crate) tokens: Vec<Token>,
    pub(crate) end: Option<(FinishReason, Stats)>,
}

impl Outcome {
    /// Checks the order of events and the counts on the way.
    pub(crate) fn of(generation: Generation<'_>) -> Self {
        Self::watching(generation, |_| {})
    }

    pub(crate) fn watching(mut generation: Generation<'_>, mut watch: impl FnMut(&Event)) -> Self {
        let mut outcome = Self::default();
        for event in generation.by_ref() {
            let event = event.unwrap();
            watch(&event);
            assert!(outcome.end.is_none(), "{event:?} after the end");
            match event {
                Event::Prefill { processed, total } => {
                    assert!(outcome.tokens.is_empty());
                    let before = outcome
                        .prefill
                        .last()
                        .map_or(0, |&(processed, _)| processed);
                    assert!(before < processed && processed <= total);
                    outcome.prefill.push((processed, total));
                }
                Event::Token(token) => {
                    let (processed, total) = *outcome.prefill.last().unwrap();
                    assert_eq!(processed, total);
                    outcome.tokens.push(token);
                }
                Event::Finished { reason, stats } => outcome.end = Some((reason, stats)),
            }
        }
        for _ in 0..3 {
            assert!(generation.next().is_none());
        }
        let (_, stats) = outcome.end.unwrap();
        assert_eq!(stats.generated_tokens, outcome.tokens.len());
        outcome
    }

    pub(crate) fn reason(&self) -> FinishReason {
        self.end.unwrap().0
    }

    pub(crate) fn ids(&self) -> Vec<u32> {
        self.tokens.iter().map(|token| token.id).collect()
    }

    pub(crate) fn text(&self) -> String {
        self.tokens
            .iter()
            .map(|token| token.text.as_str())
            .collect()
    }
}

pub(crate) fn run(model: &LanguageModel, prompt: &str, options: GenerateOptions) -> Outcome {
    Outcome::of(model.generate(prompt, options).unwrap())
}

/// What `ids` add to the text of the prompt.
pub(crate) fn decode(model: &LanguageModel, prompt: &str, ids: &[u32]) -> String {
    let prompt = model.tokenizer().encode_prompt(prompt).unwrap();
    let text = |ids: &[u32]| model.tokenizer().decode(ids).unwrap();
    let all = text(&[&prompt[..], ids].concat());
    all.strip_prefix(&text(&prompt)).unwrap().to_owned()
}

/// Logits `[V]` after `ids`, from the network alone.
pub(crate) fn logits(model: &Model, ids: &[u32]) -> Vec<f32> {
    let tokens = Array::from_slice(ids, &[1, ids.len() as i32]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    let last = hidden.try_index((0, -1, ..)).unwrap();
    model.logits(&last).unwrap().to_vec_exact::<f32>().unwrap()
}
