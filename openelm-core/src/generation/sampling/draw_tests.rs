//! Draws and greedy choices.

use mlx_rs::Array;

use super::{Sampling, sampler_tests::sampler};

/// Draws many tokens from `logits` and returns the frequency of each token.
fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
    let sampling = Sampling {
        seed: Some(7),
        ..sampling
    };
    let mut sampler = sampler(&sampling, logits.len(), &[]);
    let array = Array::from_slice(logits, &[logits.len() as i32]);
    let mut counts = vec![0.0; logits.len()];
    let draws = 4000;
    for _ in 0..draws {
        let token = sampler.choose(&array, None).unwrap();
        counts[token.item_exact::<u32>() as usize] += 1.0 / f64::from(draws);
    }
    counts
}

fn assert_shares(sampling: Sampling, logits: &[f32], expected: &[f64]) {
    let shares = shares(sampling.clone(), logits);
    for (share, expected) in shares.iter().zip(expected) {
        assert!((share - expected).abs() < 0.03, "{sampling:?}: {shares:?}");
        assert_eq!(*share == 0.0, *expected == 0.0, "{sampling:?}: {shares:?}");
    }
}

fn ln(probabilities: &[f32]) -> Vec<f32> {
    probabilities.iter().map(|p| p.ln()).collect()
}

#[test]
fn greedy_takes_the_most_likely_token() {
    assert_shares(Sampling::default(), &[0.1, 2.0, -1.0], &[0.0, 1.0, 0.0]);
    let tiny = Sampling {
        temperature: 1e-30,
        ..Sampling::default()
    };
    assert_shares(tiny, &[0.1, 2.0, -1.0], &[0.0, 1.0, 0.0]);
}

#[test]
fn draws_follow_the_distribution() {
    let logits = ln(&[0.2, 0.5, 0.3]);
    let base = Sampling {
        temperature: 1.0,
        ..Sampling::default()
    };
    assert_shares(base.clone(), &logits, &[0.2, 0.5, 0.3]);
    // Halving the temperature squares the probabilities: 4, 25 and 9 of 38.
    let cold = Sampling {
        temperature: 0.5,
        ..base.clone()
    };
    assert_shares(cold, &logits, &[4.0 / 38.0, 25.0 / 38.0, 9.0 / 38.0]);
    let top_k = Sampling {
        top_k: 2,
        ..base.clone()
    };
    assert_shares(top_k, &logits, &[0.0, 0.625, 0.375]);
    let top_p = Sampling {
        top_p: 0.6,
        ..base.clone()
    };
    assert_shares(top_p, &logits, &[0.0, 0.625, 0.375]);
    let top_p_one = Sampling {
        top_p: 0.4,
        ..base.clone()
    };
    assert_shares(top_p_one, &logits, &[0.0, 1.0, 0.0]);
    let min_p = Sampling {
        min_p: 0.5,
        ..base.clone()
    };
    assert_shares(min_p, &logits, &[0.0, 0.625, 0.375]);
    let all = Sampling {
        top_k: 2,
        top_p: 0.9,
        min_p: 0.7,
        ..base
    };
    assert_shares(all, &logits, &[0.0, 1.0, 0.0]);
}

#[test]
fn extreme_values_keep_the_order_of_the_logits() {
    let logits = [-8.0_f32, -2.0, -4.0, 1.0];
    let array = Array::from_slice(&logits, &[4]);
    let choose = |sampling: Sampling, prompt: &[u32]| {
        let seed = Some(11);
        let sampling = Sampling { seed, ..sampling };
        let mut sampler = sampler(&sampling, 4, prompt);
        sampler.choose(&array, None).unwrap().item_exact::<u32>()
    };
    let cold = Sampling {
        temperature: 1e-5,
        ..Sampling::default()
    };
    for (temperature, repetition_penalty, prompt, expected) in [
        // All tokens are penalised.
        (0.0, f32::MAX, &[0, 1, 2, 3][..], 3),
        (0.0, f32::MAX, &[0, 1, 2], 3),
        (1e-5, f32::MAX, &[0, 1, 2, 3], 3),
        (1e-5, f32::MIN_POSITIVE, &[3], 3),
        (0.0, f32::MIN_POSITIVE, &[0, 1, 2, 3], 3),
        (f32::MIN_POSITIVE, 1.0, &[], 3),
    ] {
        let sampling = Sampling {
            temperature,
            repetition_penalty,
            ..Sampling::default()
        };
        assert_eq!(choose(sampling.clone(), prompt), expected, "{sampling:?}");
    }
    for (top_k, top_p, min_p) in [
        (0, f32::MIN_POSITIVE, 0.0),
        (0, 1.0, 1.0),
        (1, f32::MIN_POSITIVE, 1.0),
        (3, 1.0, f32::MIN_POSITIVE),
        (usize::MAX, 0.5, 1.0),
    ] {
        let sampling = Sampling {
            top_k,
            top_p,
            min_p,
            ..cold.clone()
        };
        assert_eq!(choose(sampling.clone(), &[]), 3, "{sampling:?}");
    }
    // Equal negative logits, all penalised: the larger one stays first.
    let array = Array::from_slice(&[-8.0_f32, -2.0, -4.0], &[3]);
    let sampling = Sampling {
        repetition_penalty: f32::MAX,
        ..Sampling::default()
    };
    let mut sampler = sampler(&sampling, 3, &[0, 1, 2]);
    assert_eq!(sampler.choose(&array, None).unwrap().item_exact::<u32>(), 1);
}

#[test]
fn equal_seeds_draw_equal_tokens() {
    let draws = |seed| {
        let sampling = Sampling {
            temperature: 1.0,
            seed: Some(seed),
            ..Sampling::default()
        };
        let mut sampler = sampler(&sampling, 50, &[]);
        let logits = Array::zeros::<f32>(&[50]).unwrap();
        let draw = |_| sampler.choose(&logits, None).unwrap().item_exact::<u32>();
        (0..20).map(draw).collect::<Vec<_>>()
    };
    assert_eq!(draws(3), draws(3));
    assert_ne!(draws(3), draws(4));
}

#[test]
fn draws_do_not_depend_on_the_rounding_of_logits() {
    let wide = Sampling {
        temperature: 1.0,
        seed: Some(7),
        ..Sampling::default()
    };
    let nucleus = Sampling {
        top_p: 0.95,
        ..wide.clone()
    };
    for sampling in [wide, nucleus] {
        let vocab = 4000;
        let mut exact = sampler(&sampling, vocab, &[]);
        let mut rounded = sampler(&sampling, vocab, &[]);
        let mut different = 0;
        for step in 0..500_u32 {
            let logits: Vec<f32> = (0..vocab as u32)
                .map(|id| ((id * 31 + step * 17) % 97) as f32 / 16.0)
                .collect();
            let shifted = logits.iter().enumerate();
            let shifted: Vec<f32> = shifted
                .map(|(id, logit)| logit * (1.0 + [1e-6, -1e-6][(id + step as usize) % 2]))
                .collect();
            let shape = [vocab as i32];
            let one = exact.choose(&Array::from_slice(&logits, &shape), None);
            let other = rounded.choose(&Array::from_slice(&shifted, &shape), None);
            let [one, other] = [one, other].map(|id| id.unwrap().item_exact::<u32>());
            different += u32::from(one != other);
        }
        // The sums are within 1e-5 of another's in about one step of 10,000.
        assert!(
            different <= 1,
            "{different} of 500 draws differ: {sampling:?}"
        );
    }
}
