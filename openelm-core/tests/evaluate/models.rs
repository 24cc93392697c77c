//! The tales model, and log-probabilities from the whole sequence without a cache.

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Error, LanguageModel, LoadOptions, Model, Tokenizer,
    evaluate::{EncodedRequest, LogLikelihood, ScoreRequest, Scorer},
    internal::{ReadOptions, Weights},
    weights::Checkpoint,
};
use openelm_testing::tales;
use serde_json::Value;

pub(crate) fn load() -> LanguageModel {
    let options = LoadOptions {
        dtype: Some(Dtype::Float32),
        ..LoadOptions::default()
    };
    LanguageModel::load(tales(), &options).unwrap()
}

/// The tales model with a context of `context` tokens.
pub(crate) fn load_with_context(context: u64) -> LanguageModel {
    let text = std::fs::read_to_string(tales().join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["max_context_length"] = context.into();
    let config = Config::from_json(&json.to_string(), "config.json").unwrap();
    let read = ReadOptions {
        dtype: Dtype::Float32,
        keep_quantized: false,
    };
    let checkpoint = Checkpoint::open(tales()).unwrap();
    let weights = Weights::read(&checkpoint, &config, read, &mut |_, _| {}).unwrap();
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    LanguageModel::new(model, Tokenizer::find(&tales(), None).unwrap()).unwrap()
}

pub(crate) fn request(context: &str, continuation: &str) -> ScoreRequest {
    ScoreRequest {
        context: context.into(),
        continuation: continuation.to_owned(),
    }
}

/// The results by request, and the order in which they came.
pub(crate) fn scores(
    model: &LanguageModel,
    requests: &[ScoreRequest],
) -> (Vec<LogLikelihood>, Vec<usize>) {
    let encode = |request| EncodedRequest::of_continuation(model, request).unwrap();
    encoded_scores(model, &requests.iter().map(encode).collect::<Vec<_>>())
}

/// As [`scores`].
pub(crate) fn encoded_scores(
    model: &LanguageModel,
    requests: &[EncodedRequest],
) -> (Vec<LogLikelihood>, Vec<usize>) {
    let mut found: Vec<Option<LogLikelihood>> = vec![None; requests.len()];
    let mut order = Vec::new();
    let mut scorer = Scorer::new(model).unwrap();
    scorer
        .score(requests, |index, result| {
            assert!(found[index].replace(result).is_none());
            order.push(index);
            Ok::<_, Error>(())
        })
        .unwrap();
    (found.into_iter().map(Option::unwrap).collect(), order)
}

/// The log-probability of each token of `continuation` after `context`, and whether all are the most
/// likely ones.
pub(crate) fn expected(
    model: &LanguageModel,
    context: &[u32],
    continuation: &[u32],
) -> (Vec<f32>, bool) {
    let model = model.model();
    let ids = [context, continuation].concat();
    let read = Array::from_slice(&ids[..ids.len() - 1], &[1, ids.len() as i32 - 1]);
    let hidden = model.hidden(&read, &mut model.cache()).unwrap();
    let logits = model.logits(&hidden).unwrap();
    let vocab = logits.dim(2) as usize;
    let logits = logits.to_vec_exact::<f32>().unwrap();
    let rows = logits.chunks(vocab).skip(context.len() - 1);
    let mut is_greedy = true;
    let logprobs = rows.zip(continuation).map(|(row, &id)| {
        let largest = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
        is_greedy &= row[id as usize] == largest;
        (f64::from(row[id as usize] - largest) - sum.ln()) as f32
    });
    (logprobs.collect(), is_greedy)
}

#[track_caller]
pub(crate) fn assert_close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let scale = expected.abs().max(1.0);
        assert!(
            (found - expected).abs() < 1e-5 * scale,
            "{index}: {found} {expected}"
        );
    }
}

/// A text of `count` words.
pub(crate) fn words(count: usize) -> String {
    let all = [
        "the", "king", "went", "to", "a", "dark", "forest", "and", "said",
    ];
    let words = (0..count).map(|i| all[(i * i + i / 7) % all.len()]);
    words.collect::<Vec<_>>().join(" ")
}
