//! Random corruption: thousands of cases, none of which may panic.

use std::fs;

use openelm_core::{
    Dtype, Error, Model,
    generation::{Event, GenerateOptions, Generation, Sampling},
    internal::{ReadOptions, Weights},
};
use openelm_testing::{Random, TempDir};
use safetensors::Dtype as Stored;

use crate::folders::{
    INDEX, SINGLE, file, header_end, index, logits, open, shards, tensors, with_config,
};

/// Opens a corrupt folder and runs the model if it opens. Returns true if it does.
fn survives(folder: &TempDir) -> bool {
    let Ok((config, checkpoint)) = open(folder) else {
        return false;
    };
    let Ok(weights) = Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype: Dtype::Float32,
            keep_quantized: false,
        },
        &mut |_, _| {},
    ) else {
        return true;
    };
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    // Any weights give logits, possibly NaN, and any logits give tokens of the vocabulary.
    logits(&model);
    for temperature in [0.0, 1.0] {
        let options = GenerateOptions {
            max_tokens: 3,
            logprobs: 2,
            ignore_eos: true,
            sampling: Sampling {
                temperature,
                top_k: 8,
                top_p: 0.9,
                seed: Some(1),
                ..Sampling::default()
            },
            ..GenerateOptions::default()
        };
        for event in Generation::new(&model, None, vec![1, 5, 9], options).unwrap() {
            match event {
                Ok(Event::Token(token)) => assert!(token.id < 32, "{}", token.id),
                Ok(_) => {}
                Err(error) => assert!(matches!(error, Error::NonFinite { .. }), "{error}"),
            }
        }
    }
    true
}

/// Replaces, flips, removes or duplicates a few bytes between `from` and `to`.
fn spoil(bytes: &mut Vec<u8>, from: usize, to: usize, random: &mut Random) {
    const JSON: &[u8] = b"{}[]\",:0123456789-.eEF\\ntrul";
    for _ in 0..=random.below(3) {
        let place = from + random.below(to.min(bytes.len()) - from);
        match random.below(8) {
            0..3 => bytes[place] ^= 1 << random.below(8),
            3..5 => bytes[place] = JSON[random.below(JSON.len())],
            5 => bytes[place] = random.next() as u8,
            6 => drop(bytes.remove(place)),
            _ => bytes.insert(place, bytes[place]),
        }
    }
}

#[test]
fn corrupt_weight_files_never_panic() {
    let folder = with_config();
    let good = file(&tensors(Stored::F16));
    let header = header_end(&good);
    let mut random = Random(4);
    let (mut models, mut errors) = (0, 0);
    for case in 0..4_000 {
        let mut bytes = good.clone();
        match case % 20 {
            // Tensor data is not checked: these are models, also with NaN and infinity.
            0 => {
                for _ in 0..200 {
                    let place = header + random.below(bytes.len() - header);
                    bytes[place] = random.next() as u8;
                }
            }
            1..4 => spoil(&mut bytes, 0, 8, &mut random),
            _ => spoil(&mut bytes, 8, header, &mut random),
        }
        folder.write(SINGLE, &bytes);
        if survives(&folder) {
            models += 1;
        } else {
            errors += 1;
        }
    }
    // Both outcomes must be frequent for the test to be meaningful.
    assert!(models > 200 && errors > 2_000, "{models}, {errors}");
}

#[test]
fn corrupt_indexes_never_panic() {
    let folder = with_config();
    let map = shards(&folder, &tensors(Stored::F16));
    let good = index(&map).into_bytes();
    let mut random = Random(5);
    let (mut models, mut errors) = (0, 0);
    for _ in 0..4_000 {
        let mut bytes = good.clone();
        let length = bytes.len();
        spoil(&mut bytes, 0, length, &mut random);
        folder.write(INDEX, &bytes);
        if survives(&folder) {
            models += 1;
        } else {
            errors += 1;
        }
    }
    assert!(models > 10 && errors > 2_000, "{models}, {errors}");
}

#[test]
fn corrupt_shards_never_panic() {
    let folder = with_config();
    shards(&folder, &tensors(Stored::BF16));
    let path = folder.join("model-00002-of-00003.safetensors");
    let good = fs::read(&path).unwrap();
    let mut random = Random(6);
    for _ in 0..2_000 {
        let mut bytes = good.clone();
        spoil(&mut bytes, 0, header_end(&good), &mut random);
        fs::write(&path, &bytes).unwrap();
        survives(&folder);
    }
}
