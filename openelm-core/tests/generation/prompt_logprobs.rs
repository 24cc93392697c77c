//! Log-probabilities of the prompt.

use mlx_rs::{Array, Dtype, ops::indexing::TryIndexOp};
use openelm_core::{
    LanguageModel,
    generation::{
        Event, GenerateOptions, Generation, KvCacheOptions, PrefixCache, PromptToken, advance,
    },
};

use crate::models::{greedy, load};

const TEXT: &str = "Lily liked to play with her red ball in the park. One day, she met Tom.";

fn options(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        prompt_logprobs: true,
        ..greedy(max_tokens)
    }
}

/// The prompt's tokens of all events, and the number of generated tokens.
fn read(generation: Generation<'_>) -> (Vec<PromptToken>, usize) {
    let (mut prompt, mut generated) = (Vec::new(), 0);
    for event in generation {
        match event.unwrap() {
            Event::Prefill { logprobs, .. } => prompt.extend(logprobs),
            Event::Token(_) => generated += 1,
            Event::Finished { stats, .. } => assert_eq!(stats.cached_tokens, 0),
        }
    }
    (prompt, generated)
}

/// The rows of log-probabilities after each token of the prompt, by one pass.
fn expected(model: &LanguageModel, ids: &[u32]) -> Vec<Vec<f32>> {
    let network = model.model();
    let tokens = Array::from_slice(ids, &[1, ids.len() as i32]);
    let hidden = network.hidden(&tokens, &mut network.cache()).unwrap();
    let logits = network.logits(&hidden).unwrap();
    let logits = logits.as_dtype(Dtype::Float32).unwrap();
    let rows = (0..ids.len() as i32).map(|row| {
        let row = logits.try_index((0, row)).unwrap();
        let row = row.to_vec_exact::<f32>().unwrap();
        let largest = row.iter().copied().fold(f32::MIN, f32::max);
        let sum: f64 = row.iter().map(|x| f64::from(x - largest).exp()).sum();
        let log_sum = sum.ln() as f32 + largest;
        row.iter().map(|x| x - log_sum).collect()
    });
    rows.collect()
}

fn assert_near(a: &[PromptToken], b: &[PromptToken]) {
    assert_eq!(a.len(), b.len());
    for (a, b) in a.iter().zip(b) {
        assert_eq!(a.id, b.id);
        assert!((a.logprob - b.logprob).abs() < 1e-4);
    }
}

#[test]
fn each_token_has_the_models_logprob() {
    let model = load();
    let ids = model.tokenizer().encode_prompt(TEXT).unwrap();
    let rows = expected(&model, &ids);
    for (chunk, top, max_tokens) in [
        (None, 0, 0),
        (Some(1), 3, 0),
        (Some(7), 2, 3),
        (Some(ids.len()), 5, 1),
        (Some(ids.len() - 1), 1, 2),
    ] {
        let options = GenerateOptions {
            prefill_chunk: chunk,
            logprobs: top,
            ..options(max_tokens)
        };
        let (prompt, generated) = read(model.generate(TEXT, options).unwrap());
        assert_eq!(generated, max_tokens);
        let found: Vec<_> = prompt.iter().map(|token| token.id).collect();
        assert_eq!(found, ids[1..]);
        for (token, row) in prompt.iter().zip(&rows) {
            assert!((token.logprob - row[token.id as usize]).abs() < 1e-4);
            assert_eq!(token.top_logprobs.len(), top);
            let mut sorted = row.clone();
            sorted.sort_by(|a, b| b.total_cmp(a));
            for (likely, value) in token.top_logprobs.iter().zip(sorted) {
                assert!((likely.logprob - value).abs() < 1e-4);
                assert!((likely.logprob - row[likely.id as usize]).abs() < 1e-4);
            }
        }
    }
    let text = model.generate(TEXT, greedy(1)).unwrap();
    assert_eq!(read(text).0, []);
}

#[test]
fn a_batch_and_known_prefixes_change_nothing() {
    let model = load();
    let (alone, _) = read(model.generate(TEXT, options(4)).unwrap());
    let mut prefixes = PrefixCache::new(1 << 30);
    let mut first = model
        .generate_with_prefixes(TEXT, greedy(4), &mut prefixes)
        .unwrap();
    first.by_ref().for_each(drop);
    prefixes.insert(first.into_cache());
    let again = model.generate_with_prefixes(TEXT, options(4), &mut prefixes);
    assert_eq!(read(again.unwrap()).0, alone);

    let other = model.generate("Once upon a time", options(9)).unwrap();
    let mut together = [other, model.generate(TEXT, options(4)).unwrap()];
    let mut prompt = Vec::new();
    while !together.iter().all(Generation::has_ended) {
        advance(&mut together.iter_mut().collect::<Vec<_>>());
        while together[0].ready_event().is_some() {}
        while let Some(event) = together[1].ready_event() {
            if let Event::Prefill { logprobs, .. } = event.unwrap() {
                prompt.extend(logprobs);
            }
        }
    }
    assert_near(&prompt, &alone);
}

#[test]
fn a_rotating_cache_has_the_logprobs_of_its_window() {
    let model = load();
    let kv_cache = KvCacheOptions {
        max_kv_size: Some(64),
        ..KvCacheOptions::default()
    };
    let rotating = GenerateOptions {
        kv_cache,
        ..options(0)
    };
    // The prompt fits: the window changes nothing.
    let (found, _) = read(model.generate(TEXT, rotating).unwrap());
    let (plain, _) = read(model.generate(TEXT, options(0)).unwrap());
    assert_near(&found, &plain);
}
