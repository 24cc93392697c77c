//! Loading keeps no second copy of the weights: memory holds at most the model, the mapped file and
//! the tensor being cast. In its own process, because MLX counts memory per process.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

#[cfg(target_os = "linux")]
use std::fs;

use openelm_core::{
    Config, Dtype,
    config::LayerWiseConfig,
    internal::{ReadOptions, Weights},
    memory,
    weights::Checkpoint,
};
use openelm_testing::{TempDir, write_weights};

/// 19.4 million parameters; the embedding is by far the largest tensor.
fn config() -> Config {
    let settings = LayerWiseConfig {
        model_dim: 512,
        num_transformer_layers: 6,
        vocab_size: 16_000,
        ..LayerWiseConfig::default()
    };
    Config::layer_wise(settings).unwrap()
}

/// Peak memory of this process, in bytes.
#[cfg(target_os = "linux")]
fn process_peak() -> usize {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status
        .lines()
        .find(|line| line.starts_with("VmHWM"))
        .unwrap();
    let kilobytes = line.split_whitespace().nth(1).unwrap();
    kilobytes.parse::<usize>().unwrap() * 1024
}

#[test]
fn loading_copies_at_most_one_tensor() {
    const SLACK: usize = 2 << 20;
    let folder = TempDir::new();
    let config = config();
    // The value does not matter; 0x3c00 is 1.
    write_weights(&folder, &config.to_json(), &config.tensors(), &[0x00, 0x3c]);
    let elements = config.parameter_count() as usize;
    let largest = 16_000 * 512;
    // A tensor must be small relative to the model, and the tolerance small relative to a tensor.
    assert!(
        elements > 2 * largest && 2 * largest > 4 * SLACK,
        "{elements}"
    );

    for (dtype, size, copy) in [
        // Without a cast, the model uses the file's bytes.
        (Dtype::Float16, 2, 0),
        (Dtype::Bfloat16, 2, 2 * largest),
        (Dtype::Float32, 4, 2 * largest),
    ] {
        let before = memory::active_bytes().unwrap();
        assert!(before < SLACK, "{before}");
        #[cfg(target_os = "linux")]
        let resident = process_peak();
        mlx_rs::memory::reset_peak_memory().unwrap();

        let checkpoint = Checkpoint::open(&folder).unwrap();
        checkpoint.check(&config).unwrap();
        let weights = Weights::read(
            &checkpoint,
            &config,
            ReadOptions {
                dtype,
                keep_quantized: false,
            },
            &mut |_, _| {},
        )
        .unwrap();

        let peak = memory::peak_bytes().unwrap();
        // Without a cast, the weights are the mapped file; a cast to a dtype of the same size is
        // done in place.
        let total = match dtype {
            Dtype::Float32 => elements * size,
            _ => 0,
        };
        assert!(peak >= total, "{dtype}: {peak} of {total}");
        let most = total + copy + SLACK;
        assert!(peak <= most, "{dtype}: {peak}, expected at most {most}");
        #[cfg(target_os = "linux")]
        {
            // Mapped files and MLX's cached buffers count, too.
            let file = 2 * elements;
            let (peak, most) = (process_peak(), resident + most + file + 16 * SLACK);
            assert!(peak <= most, "{dtype}: {peak}, expected at most {most}");
        }
        drop(weights);
    }
}
