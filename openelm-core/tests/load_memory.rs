//! Loading keeps no second copy of the weights: there is never more than the model, the file that
//! is mapped and the one tensor that is being cast. A process of its own, as MLX counts for the whole process.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

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

/// 19.4 million parameters; the embedding is the largest tensor by far.
fn config() -> Config {
    let settings = LayerWiseConfig {
        model_dim: 512,
        num_transformer_layers: 6,
        vocab_size: 16_000,
        ..LayerWiseConfig::default()
    };
    Config::layer_wise(settings).unwrap()
}

/// The most memory that this process ever had, in bytes.
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
    // One tensor has to be small beside the model, and the slack beside the tensor.
    assert!(
        elements > 2 * largest && 2 * largest > 4 * SLACK,
        "{elements}"
    );

    for (dtype, size, copy) in [
        // Uncast, the file's bytes are the model's.
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
        // Uncast, the weights are the file, mapped; and a cast to a type of the same size is done
        // in place.
        let total = match dtype {
            Dtype::Float32 => elements * size,
            _ => 0,
        };
        assert!(peak >= total, "{dtype}: {peak} of {total}");
        let most = total + copy + SLACK;
        assert!(peak <= most, "{dtype}: {peak}, expected at most {most}");
        #[cfg(target_os = "linux")]
        {
            // Files that are mapped or buffers that MLX keeps count here as well.
            let file = 2 * elements;
            let (peak, most) = (process_peak(), resident + most + file + 16 * SLACK);
            assert!(peak <= most, "{dtype}: {peak}, expected at most {most}");
        }
        drop(weights);
    }
}
