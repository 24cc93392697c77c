//! Choice of the next token.

use openelm_core::{
    Config, Dtype, LanguageModel, Model, Tokenizer,
    generation::{GenerateOptions, Sampling, Token, TokenLogprob},
    internal::random_weights,
};
use openelm_testing::tales;
use serde_json::Value;

use crate::models::{PROMPT, greedy, load, logits, run, warm};

fn logsumexp(logits: &[f32]) -> f64 {
    let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
    let sum: f64 = logits.iter().map(|&x| f64::from(x - largest).exp()).sum();
    f64::from(largest) + sum.ln()
}

fn argmax(logits: &[f32]) -> u32 {
    let ids = 0..logits.len();
    ids.max_by(|&a, &b| logits[a].total_cmp(&logits[b]))
        .unwrap() as u32
}

#[test]
fn text_depends_on_the_seed() {
    let model = load();
    let text = |sampling: Sampling| {
        let options = GenerateOptions {
            sampling,
            ..greedy(40)
        };
        let outcome = run(&model, PROMPT, options);
        (outcome.text(), outcome.end.unwrap().1.seed)
    };
    let filtered = Sampling {
        top_k: 50,
        top_p: 0.95,
        min_p: 0.01,
        repetition_penalty: 1.2,
        ..warm(5)
    };
    for sampling in [warm(5), filtered] {
        let (first, seed) = text(sampling.clone());
        assert_eq!(seed, 5);
        assert_eq!(text(sampling.clone()).0, first);
        let seed = Some(6);
        assert_ne!(text(Sampling { seed, ..sampling }).0, first);
    }
    // Without a seed each run has a new one, which reproduces its text.
    let seed = None;
    let (first, one) = text(Sampling { seed, ..warm(0) });
    let (_, two) = text(Sampling { seed, ..warm(0) });
    assert_ne!(one, two);
    assert_eq!(text(warm(one)).0, first);
    for seed in [0, u64::MAX] {
        assert_eq!(text(warm(seed)).1, seed);
    }
}

#[test]
fn repetition_penalty_matches_reference() {
    const PENALTY: f32 = 1.3;
    let model = load();
    let options = GenerateOptions {
        sampling: Sampling {
            repetition_penalty: PENALTY,
            ..Sampling::default()
        },
        ..greedy(40)
    };
    let outcome = run(&model, PROMPT, options);
    assert_ne!(outcome.text(), run(&model, PROMPT, greedy(40)).text());

    // Hugging Face's rule on the model's logits, computed here.
    let mut ids = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let mut expected = Vec::new();
    for _ in 0..40 {
        let mut logits = logits(model.model(), &ids);
        for (id, logit) in logits.iter_mut().enumerate() {
            if ids.contains(&(id as u32)) {
                *logit = if *logit > 0.0 {
                    *logit / PENALTY
                } else {
                    *logit * PENALTY
                };
            }
        }
        let token = argmax(&logits);
        expected.push(token);
        ids.push(token);
    }
    assert_eq!(outcome.ids(), expected);
}

#[test]
fn logprobs_match_the_logits() {
    let model = load();
    let mut ids = model.tokenizer().encode_prompt(PROMPT).unwrap();
    let vocab = model.model().config().vocab_size();
    let options = GenerateOptions {
        sampling: Sampling {
            // Log-probabilities are those of the model, before sampling filters.
            top_k: 40,
            repetition_penalty: 1.2,
            ..warm(8)
        },
        logprobs: vocab,
        ..greedy(12)
    };
    let outcome = run(&model, PROMPT, options.clone());
    for token in &outcome.tokens {
        let logits = logits(model.model(), &ids);
        let log_sum = logsumexp(&logits);
        let expected = |id: u32| f64::from(logits[id as usize]) - log_sum;
        assert_eq!(token.top_logprobs.len(), vocab);
        assert!(
            token
                .top_logprobs
                .is_sorted_by(|a, b| a.logprob >= b.logprob)
        );
        let mut seen: Vec<u32> = token.top_logprobs.iter().map(|top| top.id).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), vocab);
        for &TokenLogprob { id, logprob } in &token.top_logprobs {
            assert!((f64::from(logprob) - expected(id)).abs() < 2e-4, "{id}");
        }
        let probabilities = token
            .top_logprobs
            .iter()
            .map(|top| f64::from(top.logprob).exp());
        assert!((probabilities.sum::<f64>() - 1.0).abs() < 1e-4);
        let listed = token.top_logprobs.iter().find(|top| top.id == token.id);
        assert_eq!(token.logprob, Some(listed.unwrap().logprob));
        ids.push(token.id);
    }
    // A smaller list is the beginning of the full one; the chosen token's log-probability is
    // reported even when it is not in the list.
    let few = run(
        &model,
        PROMPT,
        GenerateOptions {
            logprobs: 3,
            ..options.clone()
        },
    );
    for (few, all) in few.tokens.iter().zip(&outcome.tokens) {
        assert_eq!(few.top_logprobs, all.top_logprobs[..3]);
        assert_eq!(few.logprob, all.logprob);
    }
    assert!(
        few.tokens
            .iter()
            .any(|t| t.top_logprobs.iter().all(|top| top.id != t.id))
    );
    let none = run(
        &model,
        PROMPT,
        GenerateOptions {
            logprobs: 0,
            ..options
        },
    );
    assert_eq!(none.ids(), outcome.ids());
    let silent = |t: &Token| t.logprob.is_none() && t.top_logprobs.is_empty();
    assert!(none.tokens.iter().all(silent));
    // Greedy decoding picks the first.
    let options = GenerateOptions {
        logprobs: 1,
        ..greedy(12)
    };
    for token in run(&model, PROMPT, options).tokens {
        let (id, logprob) = (token.id, token.logprob.unwrap());
        assert_eq!(token.top_logprobs, [TokenLogprob { id, logprob }]);
    }
}

/// Limits of all ranges are valid and give tokens.
#[test]
fn accepts_limits_of_ranges() {
    let model = load();
    let sampling: [fn(&mut Sampling); 16] = [
        |s| s.temperature = f32::MIN_POSITIVE,
        |s| s.temperature = 1e-45,
        |s| s.temperature = 1e-5,
        |s| s.temperature = f32::MAX,
        |s| s.top_p = f32::MIN_POSITIVE,
        |s| s.top_p = 1e-45,
        |s| s.top_p = 1.0 - f32::EPSILON,
        |s| s.min_p = 1.0,
        |s| s.min_p = 1e-45,
        |s| s.top_k = 1,
        |s| s.top_k = 2047,
        |s| s.top_k = 2048,
        |s| s.top_k = usize::MAX,
        |s| s.repetition_penalty = f32::MIN_POSITIVE,
        |s| s.repetition_penalty = f32::MAX,
        |s| (s.repetition_penalty, s.temperature) = (f32::MAX, 0.0),
    ];
    for (case, change) in sampling.into_iter().enumerate() {
        let mut sampling = warm(1);
        change(&mut sampling);
        let options = GenerateOptions {
            sampling,
            ignore_eos: true,
            ..greedy(4)
        };
        let outcome = run(&model, PROMPT, options);
        assert_eq!(outcome.tokens.len(), 4, "case {case}");
        let likeliest = [0, 1, 4, 5, 7, 9].contains(&case);
        assert!(
            !likeliest || outcome.ids() == [549, 1302, 359, 557],
            "case {case}"
        );
    }
}

/// CoreNet's embeddings have rows beyond the vocabulary; sampling at a high temperature must not
/// pick them.
#[test]
fn ids_without_piece_are_never_sampled() {
    let text = std::fs::read_to_string(tales().join("config.json")).unwrap();
    let mut json: Value = serde_json::from_str(&text).unwrap();
    json["vocab_size"] = 4096.into();
    let config = Config::from_json(&json.to_string(), "config.json").unwrap();
    let weights = random_weights(&config, Dtype::Float32, 3).unwrap();
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    let model = LanguageModel::new(model, Tokenizer::find(&tales(), None).unwrap()).unwrap();
    for repetition_penalty in [1.0, 1.2] {
        let options = GenerateOptions {
            sampling: Sampling {
                temperature: 100.0,
                seed: Some(5),
                repetition_penalty,
                ..Sampling::default()
            },
            ignore_eos: true,
            ..greedy(60)
        };
        let ids = run(&model, PROMPT, options).ids();
        assert_eq!(ids.len(), 60);
        assert!(ids.iter().all(|&id| id < 2048), "{ids:?}");
        assert!(ids.iter().any(|&id| id > 1024), "{ids:?}");
    }
}
