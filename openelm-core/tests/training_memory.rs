//! Memory of an update of all weights. A single test, because MLX counts memory per process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    Config, Device, Dtype,
    config::{LayerWiseConfig, Preset},
    internal::{Batch, random_weights},
    memory,
    train::{Trainer, TrainerOptions},
};

/// Peak bytes per parameter of the second update, which has all moments, with or without clipping.
fn bytes_per_parameter(device: Device, clip_norm: Option<f32>) -> f64 {
    let _device = device.select();
    let config = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 4,
        model_dim: 256,
        head_dim: 32,
        vocab_size: 2_000,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    let start = random_weights(&config, Dtype::Float32, 3).unwrap();
    let options = TrainerOptions {
        clip_norm,
        ..TrainerOptions::default()
    };
    let mut trainer = Trainer::from_scratch(config, start, Dtype::Float32, options).unwrap();
    let tokens: Vec<u32> = (3..12).collect();
    let batch = Batch::packed(&[(tokens.as_slice(), &[])], 8);
    trainer.update(std::slice::from_ref(&batch), None).unwrap();
    memory::reset_peak().unwrap();
    trainer.step(&batch).unwrap();
    memory::peak_bytes().unwrap() as f64 / trainer.parameter_count() as f64
}

/// Parameters, two moments and gradients are 16 bytes. A step that holds all gradients until its
/// end, as it did, has 21.6 without clipping and 21.8 with it.
#[test]
fn an_update_frees_each_gradient() {
    memory::set_cache_limit(0).unwrap();
    for device in [Device::Cpu, Device::Gpu] {
        for (clip_norm, most) in [(None, 18.5), (Some(1.0), 20.5)] {
            let bytes = bytes_per_parameter(device, clip_norm);
            assert!(bytes < most, "{device}, clip {clip_norm:?}: {bytes}");
        }
    }
}
