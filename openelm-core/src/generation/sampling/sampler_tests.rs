//! Options together, clones, and choices without tokens.

use mlx_rs::Array;

use super::{Sampler, SamplerVocabulary, Sampling};

fn vocabulary(size: usize) -> SamplerVocabulary<'static> {
    SamplerVocabulary {
        size,
        tokenizer: None,
        end_tokens: &[2],
    }
}

pub(super) fn sampler(sampling: &Sampling, size: usize, prompt: &[u32]) -> Sampler {
    Sampler::new(sampling, &vocabulary(size), prompt).unwrap()
}

fn array(logits: &[f32]) -> Array {
    Array::from_slice(logits, &[logits.len() as i32])
}

/// The token and the logits of the next choice.
fn choose(sampler: &mut Sampler, logits: &[f32], allowed: Option<&[bool]>) -> (u32, Vec<f32>) {
    let allowed = allowed.map(|allowed| Array::from_slice(allowed, &[allowed.len() as i32]));
    let choice = sampler.choice(&array(logits), allowed.as_ref()).unwrap();
    let logits = choice.logits().unwrap().to_vec_exact::<f32>().unwrap();
    (choice.token.item_exact::<u32>(), logits)
}

#[test]
fn repetition_penalty_follows_hugging_face() {
    let sampling = Sampling {
        repetition_penalty: 2.0,
        ..Sampling::default()
    };
    let mut sampler = sampler(&sampling, 4, &[0, 3]);
    let logits = [4.0, 3.0, -1.0, -0.5];
    let (_, penalized) = choose(&mut sampler.clone(), &logits, None);
    assert_eq!(penalized, [2.0, 3.0, -1.0, -1.0]);
    // Token 1 wins once, is then penalised to 1.5, and token 0 at 2 wins.
    let logits = array(&logits);
    assert_eq!(
        sampler.choose(&logits, None).unwrap().item_exact::<u32>(),
        1
    );
    assert_eq!(
        sampler.choose(&logits, None).unwrap().item_exact::<u32>(),
        0
    );
    assert_eq!(
        sampler.choose(&logits, None).unwrap().item_exact::<u32>(),
        0
    );
}

#[test]
fn repetition_window_forgets_tokens() {
    let sampling = Sampling {
        repetition_penalty: 2.0,
        repetition_context_size: Some(2),
        ..Sampling::default()
    };
    let mut sampler = sampler(&sampling, 4, &[0, 1, 3]);
    assert!(sampler.reads_history());
    let logits = [4.0, 3.0, -1.0, -0.5];
    assert_eq!(
        choose(&mut sampler, &logits, None),
        (0, vec![4.0, 1.5, -1.0, -1.0])
    );
    sampler.accept(0);
    assert_eq!(
        choose(&mut sampler, &logits, None),
        (1, vec![2.0, 3.0, -1.0, -1.0])
    );
}

#[test]
fn biases_come_first_and_exclusions_last() {
    let sampling = Sampling {
        logit_bias: [(0, 4.0), (1, f32::NEG_INFINITY)].into(),
        repetition_penalty: 2.0,
        presence_penalty: 0.25,
        frequency_penalty: 0.5,
        min_tokens: 1,
        ..Sampling::default()
    };
    let mut sampler = sampler(&sampling, 5, &[0, 3, 3, 1]);
    let logits = [2.0, 9.0, 8.0, 3.0, 1.0];
    let none = f32::NEG_INFINITY;
    // (2 + 4) / 2 - 0.25 - 0.5, and 3 / 2 - 0.25 - 2 * 0.5.
    assert_eq!(
        choose(
            &mut sampler,
            &logits,
            Some(&[true, true, true, false, true])
        ),
        (0, vec![2.25, none, none, none, 1.0])
    );
    sampler.accept(0);
    // The end token is allowed after the first.
    let (token, found) = choose(&mut sampler, &logits, None);
    assert_eq!((token, found), (2, vec![1.75, none, 8.0, 0.25, 1.0]));
}

/// Ids without a piece can be in a prompt, but have no logit.
#[test]
fn ids_beyond_the_logits_are_not_penalised() {
    let sampling = Sampling {
        repetition_penalty: 2.0,
        repetition_context_size: Some(9),
        presence_penalty: 1.0,
        frequency_penalty: 1.0,
        dry_multiplier: 1.0,
        dry_allowed_length: 1,
        dry_sequence_breakers: Vec::new(),
        ..Sampling::default()
    };
    let mut sampler = sampler(&sampling, 3, &[7, 1, 7, 7]);
    assert_eq!(sampler.subtracted(), [(1, -3.0)].into());
    let (_, found) = choose(&mut sampler, &[1.0, 2.0, 3.0], None);
    // Token 1 followed 7: 2 / 2 - 1 - 1 - 1.
    assert_eq!(found, [1.0, -2.0, 3.0]);
}

#[test]
fn choice_without_tokens_is_reported() {
    let mut sampling = Sampling::default();
    let logits = array(&[1.0, 2.0]);
    let largest = |sampling: &Sampling, allowed: Option<&[bool]>| {
        let allowed = allowed.map(|allowed| Array::from_slice(allowed, &[2]));
        let choice = sampler(sampling, 2, &[]).choice(&logits, allowed.as_ref());
        choice
            .unwrap()
            .largest
            .map(|largest| largest.item_exact::<f32>())
    };
    assert_eq!(largest(&sampling, None), None);
    let none = f32::NEG_INFINITY;
    assert_eq!(largest(&sampling, Some(&[false, false])), Some(none));
    assert_eq!(largest(&sampling, Some(&[true, false])), Some(1.0));
    sampling.logit_bias = [(0, none), (1, none)].into();
    assert_eq!(largest(&sampling, None), Some(none));
    let problem = sampler(&sampling, 2, &[]).nothing_allowed().to_string();
    assert!(
        problem.starts_with("logit_bias: no token is left"),
        "{problem}"
    );
}

/// Filters leave the logits of the tokens they keep, at the tokens' ids.
#[test]
fn choice_has_the_logits_of_the_draw() {
    let logits = [0.1_f32, 0.4, 0.2, 0.3].map(f32::ln);
    for (sampling, kept) in [
        (
            Sampling {
                top_k: 2,
                ..Sampling::default()
            },
            [1, 3],
        ),
        (
            Sampling {
                top_p: 0.6,
                ..Sampling::default()
            },
            [1, 3],
        ),
        (
            Sampling {
                min_p: 0.5,
                ..Sampling::default()
            },
            [1, 3],
        ),
        (
            Sampling {
                typical_p: 0.4,
                ..Sampling::default()
            },
            [1, 3],
        ),
    ] {
        let sampling = Sampling {
            temperature: 0.5,
            ..sampling
        };
        let (token, found) = choose(&mut sampler(&sampling, 4, &[]), &logits, None);
        assert!(kept.contains(&token));
        for (id, value) in (0..).zip(found) {
            if kept.contains(&id) {
                assert!(
                    (value - 2.0 * logits[id as usize]).abs() < 1e-6,
                    "{sampling:?}"
                );
            } else {
                assert_eq!(value, f32::NEG_INFINITY, "{sampling:?}");
            }
        }
    }
}

#[test]
fn clone_draws_the_tokens_of_the_original() {
    let sampling = Sampling {
        temperature: 1.0,
        seed: Some(5),
        top_k: 30,
        xtc_probability: 0.5,
        xtc_threshold: 0.02,
        repetition_penalty: 1.3,
        frequency_penalty: 0.2,
        dry_multiplier: 0.8,
        dry_sequence_breakers: Vec::new(),
        logit_bias: [(3, 1.0)].into(),
        min_tokens: 12,
        ..Sampling::default()
    };
    let logits: Vec<f32> = (0..40).map(|id| (id as f32 * 1.7).sin()).collect();
    let draw = |sampler: &mut Sampler| {
        let (token, found) = choose(sampler, &logits, None);
        sampler.accept(token);
        (token, found)
    };
    let mut original = sampler(&sampling, 40, &[1, 2, 3]);
    for _ in 0..8 {
        draw(&mut original);
        let mut clone = original.clone();
        // Choices of another clone, as of rejected drafts, have no effect.
        let mut other = original.clone();
        draw(&mut other);
        let ahead: Vec<_> = (0..3).map(|_| draw(&mut clone)).collect();
        let mut again = original.clone();
        let expected: Vec<_> = (0..3).map(|_| draw(&mut again)).collect();
        assert_eq!(ahead, expected);
    }
}

#[test]
fn options_of_texts_need_a_tokenizer() {
    let problem = |change: fn(&mut Sampling)| {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        let error = Sampler::new(&sampling, &vocabulary(4), &[]).unwrap_err();
        error.to_string()
    };
    for (name, found) in [
        (
            "banned_strings",
            problem(|s| s.banned_strings = vec!["a".into()]),
        ),
        ("forced_prefix", problem(|s| s.forced_prefix = "a".into())),
        ("dry_sequence_breakers", problem(|s| s.dry_multiplier = 1.0)),
    ] {
        let expected = "expected none in a generation without a tokenizer, found one";
        assert_eq!(found, format!("{name}: {expected}"));
    }
    assert_eq!(
        problem(|s| _ = s.logit_bias.insert(4, 1.0)),
        "logit_bias: expected ids below 4, found the token 4"
    );
}

/// Extreme values keep logits finite, so that the largest stays the largest.
#[test]
fn extreme_additions_keep_the_order_of_the_logits() {
    let changes: [fn(&mut Sampling); 4] = [
        |s| s.logit_bias = [(0, f32::MIN), (1, f32::MAX)].into(),
        |s| s.presence_penalty = f32::MAX,
        |s| s.frequency_penalty = f32::MAX,
        |s| s.frequency_penalty = f32::MIN,
    ];
    for (case, change) in changes.into_iter().enumerate() {
        for temperature in [0.0, 1e-5] {
            let mut sampling = Sampling {
                temperature,
                repetition_penalty: f32::MAX,
                seed: Some(1),
                ..Sampling::default()
            };
            change(&mut sampling);
            let prompt: &[u32] = if case == 3 { &[0, 1, 1] } else { &[0, 0, 0] };
            let mut sampler = sampler(&sampling, 3, prompt);
            let (token, found) = choose(&mut sampler, &[1.0, 0.5, -0.5], None);
            assert_eq!(token, 1, "case {case}: {found:?}");
            assert!(
                found.iter().all(|x| x.is_finite()),
                "case {case}: {found:?}"
            );
        }
    }
}
