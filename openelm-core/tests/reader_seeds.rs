//! The fuzz targets on their seeds and on deterministic mutations: a short, repeatable version of
//! `make fuzz`.
#![allow(clippy::expect_used, clippy::unwrap_used, reason = "tests may panic")]

use std::{fs, path::Path};

use openelm_testing::repository;

#[path = "../../fuzz/src/readers.rs"]
mod readers;

/// Mutations of each seed.
const MUTATIONS: u64 = 4000;

#[test]
fn torch() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/torch");
    run(&fixtures, "pt", readers::torch);
}

#[test]
fn gguf() {
    run(&repository("fuzz/seeds/gguf"), "gguf", readers::gguf);
}

#[test]
fn safetensors() {
    run(
        &repository("fuzz/seeds/safetensors"),
        "safetensors",
        readers::safetensors,
    );
}

fn run(folder: &Path, ending: &str, read: fn(&[u8])) {
    let mut files: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == ending))
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no seeds in {}", folder.display());
    for file in files {
        let seed = fs::read(&file).unwrap();
        read(&seed);
        for mutation in 0..MUTATIONS {
            read(&mutate(&seed, mutation));
        }
    }
}

/// A copy with one to eight changes: a byte, a small or large number, a truncation, copied bytes.
fn mutate(seed: &[u8], number: u64) -> Vec<u8> {
    let mut state = number.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ seed.len() as u64;
    let mut random = |below: usize| {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % below.max(1) as u64) as usize
    };
    let mut bytes = seed.to_vec();
    for _ in 0..=random(8) {
        // Most of a small file is header; in a large file the header matters most.
        let within = match random(2) {
            0 => bytes.len(),
            _ => bytes.len().min(256),
        };
        let at = random(within);
        match random(5) {
            0 => bytes.truncate(at),
            1 => {
                let numbers = [0, 1, 0x7F, 0x80, u64::from(u32::MAX), 1 << 40, u64::MAX];
                let number = numbers[random(numbers.len())].to_le_bytes();
                let width = [1, 2, 4, 8][random(4)];
                for (byte, new) in bytes.iter_mut().skip(at).zip(&number[..width]) {
                    *byte = *new;
                }
            }
            2 => {
                let from = random(bytes.len());
                let length = random(64).min(bytes.len() - from);
                let piece = bytes[from..from + length].to_vec();
                let at = at.min(bytes.len());
                bytes.splice(at..at, piece);
            }
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte = random(256) as u8;
                }
            }
        }
    }
    bytes
}
