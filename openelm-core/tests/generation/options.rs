//! Options of the sampling on whole texts.

use openelm_core::{
    Error,
    generation::{EosToken, FinishReason, GenerateOptions, Generation, LogprobsOf, Sampling},
};

use crate::models::{Outcome, PROMPT, decode, greedy, load, logits, run, warm};

fn with(sampling: Sampling, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampling,
        ignore_eos: true,
        ..greedy(max_tokens)
    }
}

/// The penalties of mlx-lm on the model's logits, computed here.
#[test]
fn windowed_penalties_match_reference() {
    let model = load();
    let sampling = Sampling {
        repetition_penalty: 1.4,
        repetition_context_size: Some(6),
        presence_penalty: 0.7,
        presence_context_size: 9,
        frequency_penalty: 0.4,
        frequency_context_size: 12,
        logit_bias: [(260, -1.5), (30, 2.0)].into(),
        ..Sampling::default()
    };
    let outcome = run(&model, PROMPT, with(sampling.clone(), 40));
    let mut ids = model.tokenizer().encode_prompt(PROMPT).unwrap();
    for &found in &outcome.ids() {
        let mut logits = logits(model.model(), &ids);
        let last = |count: usize| &ids[ids.len().saturating_sub(count)..];
        for (id, logit) in (0..).zip(&mut logits) {
            *logit += sampling.logit_bias.get(&id).copied().unwrap_or(0.0);
            if last(6).contains(&id) {
                *logit *= if *logit > 0.0 { 1.0 / 1.4 } else { 1.4 };
            }
            if last(9).contains(&id) {
                *logit -= 0.7;
            }
            let count = last(12).iter().filter(|&&other| other == id).count();
            *logit -= 0.4 * count as f32;
        }
        let largest = logits.iter().fold(f32::NEG_INFINITY, |a, &b| a.max(b));
        assert!(largest - logits[found as usize] < 1e-4);
        ids.push(found);
    }
    assert_ne!(outcome.text(), run(&model, PROMPT, greedy(40)).text());
}

#[test]
fn dry_prevents_repeated_sequences() {
    let model = load();
    let longest = |text: &[u32]| {
        let repeated = |n: &usize| {
            let parts: Vec<&[u32]> = text.windows(*n).collect();
            (0..parts.len()).any(|i| parts[i + 1..].contains(&parts[i]))
        };
        (1..text.len()).take_while(repeated).last().unwrap_or(0)
    };
    let plain = run(&model, PROMPT, with(Sampling::default(), 200)).ids();
    assert!(longest(&plain) > 6, "{plain:?}");
    let sampling = Sampling {
        dry_multiplier: 100.0,
        dry_allowed_length: 3,
        dry_sequence_breakers: Vec::new(),
        ..Sampling::default()
    };
    let dry = run(&model, PROMPT, with(sampling, 200)).ids();
    assert_eq!(longest(&dry), 3, "{dry:?}");
}

#[test]
fn text_never_contains_banned_strings() {
    let model = load();
    for sampling in [
        Sampling::default(),
        warm(3),
        Sampling {
            temperature: 100.0,
            ..warm(4)
        },
    ] {
        let banned = ["e", "a l", "king", "\n", "é"];
        let plain = run(&model, PROMPT, with(sampling.clone(), 60)).text();
        assert!(banned.iter().any(|string| plain.contains(string)));
        let sampling = Sampling {
            banned_strings: banned.map(str::to_owned).to_vec(),
            ..sampling
        };
        let outcome = run(&model, PROMPT, with(sampling, 60));
        let text = outcome.text();
        assert_eq!(outcome.tokens.len(), 60);
        assert_eq!(text, decode(&model, PROMPT, &outcome.ids()));
        for string in banned {
            assert!(!text.contains(string), "{string:?} in {text:?}");
        }
    }
    // A string that crosses tokens, at each place.
    let ids = run(&model, PROMPT, greedy(64)).ids();
    let whole = decode(&model, PROMPT, &ids);
    for from in 0..24 {
        for length in [2, 7, 16] {
            let string = whole[from..from + length].to_owned();
            let sampling = Sampling {
                banned_strings: vec![string.clone()],
                ..Sampling::default()
            };
            let outcome = run(&model, PROMPT, with(sampling, 24));
            let text = outcome.text();
            assert!(!text.contains(&string), "{string:?} in {text:?}");
            // Only the token that would complete the string is another.
            let has = |count: &usize| decode(&model, PROMPT, &ids[..*count]).contains(&string);
            let completed = (1..64).find(has).unwrap() - 1;
            assert_eq!(outcome.ids()[..completed], ids[..completed]);
            assert_ne!(outcome.ids()[completed], ids[completed]);
        }
    }
}

#[test]
fn text_begins_with_the_forced_prefix() {
    let model = load();
    for prefix in [" there was a dragon", "!\n\"", " 🦙é", "x"] {
        for sampling in [Sampling::default(), warm(9)] {
            let sampling = Sampling {
                forced_prefix: prefix.to_owned(),
                // Penalties and filters do not apply to its tokens.
                repetition_penalty: 1.5,
                top_k: 1,
                logit_bias: [(30, f32::NEG_INFINITY)].into(),
                ..sampling
            };
            let options = GenerateOptions {
                logprobs: 3,
                logprobs_of: LogprobsOf::Sampler,
                ..with(sampling, 40)
            };
            let outcome = run(&model, PROMPT, options);
            let text = outcome.text();
            assert!(text.starts_with(prefix), "{text:?}");
            assert_eq!(outcome.tokens.len(), 40);
            // A forced token has the probability 1.
            assert_eq!(outcome.tokens[0].logprob, Some(0.0));
            assert_eq!(outcome.tokens[0].top_logprobs.len(), 1);
        }
    }
}

#[test]
fn min_tokens_defers_end_tokens() {
    let model = load();
    let ids = run(&model, PROMPT, greedy(64)).ids();
    let end = ids[5];
    assert!(!ids[..5].contains(&end));
    let piece = model.tokenizer().piece(end).unwrap().to_owned();
    let ended = |min_tokens: usize, token: EosToken| {
        let options = GenerateOptions {
            sampling: Sampling {
                min_tokens,
                ..Sampling::default()
            },
            extra_eos_tokens: vec![token],
            ..greedy(64)
        };
        run(&model, PROMPT, options)
    };
    for token in [EosToken::Id(end), EosToken::Piece(piece)] {
        for min_tokens in [0, 5] {
            let outcome = ended(min_tokens, token.clone());
            assert_eq!(outcome.reason(), FinishReason::Eos);
            assert_eq!(outcome.ids(), ids[..6]);
            assert_eq!(outcome.tokens[5].text, "");
        }
    }
    for min_tokens in [6, 20, usize::MAX] {
        let outcome = ended(min_tokens, EosToken::Id(end));
        assert_eq!(outcome.ids()[..5], ids[..5]);
        let first = outcome.ids().iter().position(|&id| id == end || id == 2);
        assert!(first.is_none_or(|first| first >= min_tokens), "{outcome:?}");
    }
    let options = GenerateOptions {
        extra_eos_tokens: vec![EosToken::Id(end)],
        ..with(Sampling::default(), 64)
    };
    assert_eq!(run(&model, PROMPT, options).ids(), ids);
}

#[test]
fn log_probabilities_after_sampling_follow_the_options() {
    let model = load();
    let sampling = Sampling {
        top_k: 4,
        temperature: 0.7,
        repetition_penalty: 1.3,
        ..warm(2)
    };
    let options = |logprobs_of| GenerateOptions {
        logprobs: 10,
        logprobs_of,
        ..with(sampling.clone(), 20)
    };
    let after = run(&model, PROMPT, options(LogprobsOf::Sampler));
    let before = run(&model, PROMPT, options(LogprobsOf::Model));
    assert_eq!(after.ids(), before.ids());
    let mut ids = model.tokenizer().encode_prompt(PROMPT).unwrap();
    for (token, model_s) in after.tokens.iter().zip(&before.tokens) {
        assert_eq!(
            (token.top_logprobs.len(), model_s.top_logprobs.len()),
            (4, 10)
        );
        let mut logits = logits(model.model(), &ids);
        for (id, logit) in (0..).zip(&mut logits) {
            if ids.contains(&id) {
                *logit *= if *logit > 0.0 { 1.0 / 1.3 } else { 1.3 };
            }
        }
        let top: Vec<f64> = token
            .top_logprobs
            .iter()
            .map(|top| f64::from(logits[top.id as usize] / 0.7))
            .collect();
        let sum: f64 = top.iter().map(|logit| logit.exp()).sum();
        for (top, logit) in token.top_logprobs.iter().zip(top) {
            assert!((f64::from(top.logprob) - (logit - sum.ln())).abs() < 1e-3);
        }
        let listed = token.top_logprobs.iter().find(|top| top.id == token.id);
        assert_eq!(token.logprob, Some(listed.unwrap().logprob));
        ids.push(token.id);
    }
}

#[test]
fn exclusion_of_all_tokens_ends_the_text_with_an_error() {
    let model = load();
    let banned: Vec<String> = ('\0'..='\u{7f}').map(String::from).collect();
    let sampling = Sampling {
        banned_strings: banned,
        logit_bias: (0..2048).map(|id| (id, f32::NEG_INFINITY)).collect(),
        ..warm(1)
    };
    let mut generation = model.generate(PROMPT, with(sampling, 4)).unwrap();
    let error = generation.find_map(Result::err).unwrap();
    assert_eq!(
        error.to_string(),
        "banned_strings: no token is left to generate after the exclusions of the options"
    );
    assert!(generation.next().is_none());
}

/// The limits of all ranges are valid and give tokens.
#[test]
fn accepts_limits_of_ranges() {
    let model = load();
    let changes: [fn(&mut Sampling); 22] = [
        |s| s.typical_p = f32::MIN_POSITIVE,
        |s| s.typical_p = 1e-45,
        |s| s.typical_p = 1.0 - f32::EPSILON,
        |s| s.top_n_sigma = 1e-45,
        |s| s.top_n_sigma = f32::MAX,
        |s| (s.xtc_probability, s.xtc_threshold) = (1.0, 0.0),
        |s| (s.xtc_probability, s.xtc_threshold) = (1e-45, 0.5),
        |s| s.presence_penalty = f32::MAX,
        |s| s.presence_penalty = f32::MIN,
        |s| s.frequency_penalty = f32::MAX,
        |s| s.frequency_penalty = f32::MIN,
        |s| (s.frequency_penalty, s.frequency_context_size) = (1.0, usize::MAX),
        |s| (s.presence_penalty, s.presence_context_size) = (1.0, usize::MAX),
        |s| (s.repetition_penalty, s.repetition_context_size) = (f32::MAX, Some(usize::MAX)),
        |s| (s.repetition_penalty, s.repetition_context_size) = (1.5, Some(1)),
        |s| s.dry_multiplier = f32::MAX,
        |s| (s.dry_multiplier, s.dry_base, s.dry_allowed_length) = (1.0, f32::MAX, 1),
        |s| (s.dry_multiplier, s.dry_allowed_length) = (1.0, usize::MAX),
        |s| (s.dry_multiplier, s.dry_penalty_last_n) = (1.0, Some(1)),
        |s| s.min_tokens = usize::MAX,
        |s| s.logit_bias = [(0, f32::MAX), (2047, f32::MIN)].into(),
        |s| s.banned_strings = vec!["x".repeat(1 << 16)],
    ];
    for (case, change) in changes.into_iter().enumerate() {
        for temperature in [0.0, 1e-5, 1.0, f32::MAX] {
            let mut sampling = Sampling {
                temperature,
                ..warm(1)
            };
            change(&mut sampling);
            let outcome = run(&model, PROMPT, with(sampling, 4));
            assert_eq!(outcome.tokens.len(), 4, "case {case}");
        }
    }
}

#[test]
fn names_options_that_the_model_refuses() {
    let model = load();
    let refused = |options: GenerateOptions| match model.generate(PROMPT, options).unwrap_err() {
        Error::Option { option, problem } => format!("{option}: {problem}"),
        other => panic!("{other}"),
    };
    let bias = Sampling {
        logit_bias: [(2048, 1.0)].into(),
        ..Sampling::default()
    };
    assert_eq!(
        refused(with(bias, 1)),
        "logit_bias: expected ids below 2048, found the token 2048"
    );
    let extra = |token| GenerateOptions {
        extra_eos_tokens: vec![token],
        ..greedy(1)
    };
    assert_eq!(
        refused(extra(EosToken::Piece("nothing".into()))),
        "extra_eos_tokens: expected a token of the vocabulary, found \"nothing\""
    );
    assert_eq!(
        refused(extra(EosToken::Id(2048))),
        "extra_eos_tokens: expected ids below 2048, found 2048"
    );
    let forced = Sampling {
        forced_prefix: "the</s> end".into(),
        ..Sampling::default()
    };
    assert_eq!(
        refused(with(forced, 1)),
        "forced_prefix: expected a text that the tokens reproduce, found \"the</s> end\", whose \
         tokens have the text \"the end\""
    );
    // Without a tokenizer, options that need none work.
    let sampling = Sampling {
        frequency_penalty: 0.5,
        dry_multiplier: 1.0,
        dry_sequence_breakers: Vec::new(),
        ..Sampling::default()
    };
    let outcome = Generation::new(model.model(), None, vec![1, 5, 5], with(sampling, 3)).unwrap();
    assert_eq!(Outcome::of(outcome).tokens.len(), 3);
}
