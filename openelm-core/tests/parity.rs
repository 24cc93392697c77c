//! Tiny models with weights from a formula, compared with mlx-lm's logits in `fixtures/parity.json`
//! (from `parity/fixtures.py`), without Python. The model with an FFN without a gate is compared
//! with a float64 forward pass, because mlx-lm always uses a gate.
#![allow(clippy::unwrap_used, reason = "tests may panic")]

use std::collections::HashMap;

use mlx_rs::{
    Array, Dtype as MlxDtype,
    ops::{concatenate, indexing::TryIndexOp},
};
use openelm_core::{
    Config, Dtype, Model,
    internal::{KvCache, Weights},
};
use serde::Deserialize;

/// Largest logit difference; logits have a spread of 1 and reach 4.
const BOUND: f32 = 2e-5;

#[derive(Deserialize)]
struct Fixtures {
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    config: serde_json::Value,
    prompt: Vec<u32>,
    positions: Vec<usize>,
    /// `[positions, V]`
    logits: Vec<Vec<f32>>,
    greedy: Vec<u32>,
}

#[test]
fn logits_match_reference() {
    for case in cases() {
        let model = case.model(Dtype::Float32);
        let logits = rows(&logits(&model, &case.prompt, &mut model.cache()));
        assert_eq!(logits.len(), case.prompt.len(), "{}", case.name);
        for (&position, expected) in case.positions.iter().zip(&case.logits) {
            let difference = largest_difference(&logits[position], expected);
            let Case { name, .. } = &case;
            assert!(
                difference <= BOUND,
                "{name}, position {position}: off by {difference:e}"
            );
        }
    }
}

#[test]
fn greedy_tokens_match_reference() {
    for case in cases() {
        let model = case.model(Dtype::Float32);
        let mut cache = model.cache();
        let mut last = rows(&logits(&model, &case.prompt, &mut cache))
            .pop()
            .unwrap();
        let mut greedy = Vec::new();
        for _ in &case.greedy {
            let token = argmax(&last);
            greedy.push(token);
            last = rows(&logits(&model, &[token], &mut cache)).pop().unwrap();
        }
        assert_eq!(greedy, case.greedy, "{}", case.name);
    }
}

#[test]
fn chunks_give_the_logits_of_one_pass() {
    for case in cases() {
        let model = case.model(Dtype::Float32);
        let whole = rows(&logits(&model, &case.prompt, &mut model.cache()));
        for sizes in [&[1][..], &[5, 1, 11, 7], &[23, 1]] {
            let mut cache = model.cache();
            let mut rest = case.prompt.as_slice();
            let mut parts = Vec::new();
            for &size in sizes.iter().cycle() {
                let (chunk, later) = rest.split_at(size.min(rest.len()));
                parts.push(logits(&model, chunk, &mut cache));
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            assert_eq!(cache.offset(), case.prompt.len());
            let parts = rows(&concatenate(&parts, 0).unwrap());
            for (position, (part, whole)) in parts.iter().zip(&whole).enumerate() {
                let difference = largest_difference(part, whole);
                assert!(
                    difference <= BOUND,
                    "{} in chunks of {sizes:?}, position {position}: off by {difference:e}",
                    case.name
                );
            }
        }
    }
}

/// More positions than one growth step of the cache's buffers.
#[test]
fn growing_cache_gives_the_logits_of_one_pass() {
    let case = cases().remove(0);
    let model = case.model(Dtype::Float32);
    let ids: Vec<u32> = case.prompt.iter().copied().cycle().take(600).collect();
    let whole = rows(&logits(&model, &ids, &mut model.cache()));
    let mut cache = model.cache();
    let parts: Vec<Array> = ids
        .chunks(85)
        .map(|chunk| logits(&model, chunk, &mut cache))
        .collect();
    let parts = rows(&concatenate(&parts, 0).unwrap());
    for (position, (part, whole)) in parts.iter().zip(&whole).enumerate() {
        let difference = largest_difference(part, whole);
        assert!(
            difference <= BOUND,
            "position {position}: off by {difference:e}"
        );
    }
}

/// Truncated tokens leave no trace: other tokens can replace them.
#[test]
fn truncated_cache_continues_with_other_tokens() {
    let case = cases().remove(0);
    let model = case.model(Dtype::Float32);
    let (kept, dropped) = case.prompt.split_at(9);
    let mut cache = model.cache();
    logits(&model, kept, &mut cache);
    logits(&model, dropped, &mut cache);
    assert!(cache.truncate(kept.len()));
    let continued = rows(&logits(&model, &[50, 60], &mut cache));
    let whole = [kept, &[50, 60]].concat();
    let whole = rows(&logits(&model, &whole, &mut model.cache()));
    for (part, whole) in continued.iter().zip(&whole[kept.len()..]) {
        assert!(largest_difference(part, whole) <= BOUND);
    }
}

/// Sequences of a batch do not affect each other.
#[test]
fn batch_gives_the_logits_of_each_sequence() {
    let case = cases().remove(0);
    let model = case.model(Dtype::Float32);
    let other: Vec<u32> = case.prompt.iter().rev().copied().collect();
    let both = [case.prompt.clone(), other.clone()].concat();
    let both = Array::from_slice(&both, &[2, case.prompt.len() as i32]);
    let hidden = model.hidden(&both, &mut model.cache()).unwrap();
    let batch = model.logits(&hidden).unwrap();
    for (i, ids) in [case.prompt, other].iter().enumerate() {
        let alone = rows(&logits(&model, ids, &mut model.cache()));
        let batched = rows(&batch.try_index(i as i32).unwrap());
        for (alone, batched) in alone.iter().zip(&batched) {
            assert!(largest_difference(alone, batched) <= BOUND);
        }
    }
}

/// A promotion to f32 would double memory and time on a GPU. It would show here, because attention
/// and residual sums take the wider dtype of their inputs.
#[test]
fn keeps_16_bit_dtypes() {
    for (dtype, mlx) in [
        (Dtype::Bfloat16, MlxDtype::Bfloat16),
        (Dtype::Float16, MlxDtype::Float16),
    ] {
        for case in cases() {
            let model = case.model(dtype);
            let mut cache = model.cache();
            for ids in [&case.prompt[..], &case.prompt[..1]] {
                let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
                let hidden = model.hidden(&ids, &mut cache).unwrap();
                let logits = model.logits(&hidden).unwrap();
                assert_eq!(hidden.dtype(), mlx, "hidden states of {}", case.name);
                assert_eq!(logits.dtype(), mlx, "logits of {}", case.name);
            }
            // The cache shows the dtype of its buffers in its debug form only.
            let shown = format!("{cache:?}");
            let buffers = 2 * model.config().num_transformer_layers();
            let kept = format!("dtype={}", model.dtype());
            assert_eq!(
                shown.matches(&kept).count(),
                buffers,
                "cache of {}: {shown}",
                case.name
            );
        }
    }
}

/// 16-bit dtypes lose precision only: 8 bits of significand in bf16, 11 in f16.
#[test]
fn logits_in_16_bits_are_near_float32() {
    for (dtype, bound) in [(Dtype::Bfloat16, 0.06), (Dtype::Float16, 0.006)] {
        for case in cases() {
            let model = case.model(dtype);
            let logits = rows(&logits(&model, &case.prompt, &mut model.cache()));
            let mut squares = Vec::new();
            for (&position, expected) in case.positions.iter().zip(&case.logits) {
                let pairs = logits[position].iter().zip(expected);
                squares.extend(pairs.map(|(found, expected)| (found - expected).powi(2)));
            }
            assert_eq!(
                squares.len(),
                case.positions.len() * model.config().vocab_size()
            );
            let distance = (squares.iter().sum::<f32>() / squares.len() as f32).sqrt();
            assert!(distance <= bound, "{} in {dtype}: {distance}", case.name);
        }
    }
}

impl Case {
    fn model(&self, dtype: Dtype) -> Model {
        let config = Config::from_json(&self.config.to_string(), &self.name).unwrap();
        let tensors: HashMap<String, Array> = config
            .tensors()
            .into_iter()
            .map(|(name, shape)| {
                let tensor = tensor(&name, &shape);
                let tensor = match dtype {
                    Dtype::Float32 => tensor,
                    Dtype::Float16 => tensor.as_dtype(MlxDtype::Float16).unwrap(),
                    Dtype::Bfloat16 => tensor.as_dtype(MlxDtype::Bfloat16).unwrap(),
                };
                (name, tensor)
            })
            .collect();
        Model::new(config, Weights::from_tensors(tensors), dtype).unwrap()
    }
}

fn cases() -> Vec<Case> {
    let fixtures: Fixtures = serde_json::from_str(include_str!("fixtures/parity.json")).unwrap();
    assert_eq!(fixtures.cases.len(), 6);
    fixtures.cases
}

/// The formula of `weights` in `parity/fixtures.py`.
fn tensor(name: &str, shape: &[usize]) -> Array {
    let seed = name.bytes().fold(0x811C_9DC5_u32, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    });
    let spread = match shape {
        [_, inputs] => (3.0 / *inputs as f64).sqrt() as f32,
        _ => 1.0,
    };
    let values: Vec<f32> = (0..shape.iter().product::<usize>() as u32)
        .map(|i| {
            let mut x = i.wrapping_mul(0x9E37_79B9).wrapping_add(seed);
            x = (x ^ (x >> 16)).wrapping_mul(0x85EB_CA6B);
            x = (x ^ (x >> 13)).wrapping_mul(0xC2B2_AE35);
            x ^= x >> 16;
            let even = ((x >> 16) as f32 - 32768.0) / 32768.0;
            if shape.len() == 1 {
                1.0 + even / 4.0
            } else {
                even * spread
            }
        })
        .collect();
    let shape: Vec<i32> = shape.iter().map(|&n| n as i32).collect();
    Array::from_slice(&values, &shape)
}

/// Logits `[L, V]` of `ids`, which continue `cache`.
fn logits(model: &Model, ids: &[u32], cache: &mut KvCache) -> Array {
    let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
    let hidden = model.hidden(&ids, cache).unwrap();
    model.logits(&hidden).unwrap().try_index(0).unwrap()
}

fn rows(array: &Array) -> Vec<Vec<f32>> {
    let array = array.as_dtype(MlxDtype::Float32).unwrap();
    let width = array.dim(-1) as usize;
    let values = array.to_vec_exact::<f32>().unwrap();
    values.chunks(width).map(<[f32]>::to_vec).collect()
}

/// Largest absolute difference; infinite if the lengths differ or a value is not finite.
fn largest_difference(a: &[f32], b: &[f32]) -> f32 {
    let finite = a.iter().chain(b).all(|x| x.is_finite());
    if !finite || a.len() != b.len() {
        return f32::INFINITY;
    }
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

fn argmax(values: &[f32]) -> u32 {
    let largest = (0..values.len()).max_by(|&a, &b| values[a].total_cmp(&values[b]));
    largest.unwrap() as u32
}
