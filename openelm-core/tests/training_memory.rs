//! Memory of an update of all weights. A single test, because MLX counts memory per process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    Config, Device, Dtype,
    config::{LayerWiseConfig, Preset},
    internal::{Batch, random_weights},
    memory,
    train::{Trainer, TrainerOptions},
};

/// Peak bytes per parameter of the second update, which has all moments.
fn bytes_per_parameter(device: Device) -> f64 {
    let _device = device.select();
    let config = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 24,
        model_dim: 128,
        head_dim: 32,
        vocab_size: 2_000,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    let start = random_weights(&config, Dtype::Float32, 3).unwrap();
    let options = TrainerOptions::default();
    let mut trainer = Trainer::from_scratch(config, start, Dtype::Float32, options).unwrap();
    let tokens: Vec<u32> = (3..12).collect();
    let batch = Batch::packed(&[(tokens.as_slice(), &[])], 8);
    trainer.step(&batch).unwrap();
    memory::reset_peak().unwrap();
    trainer.step(&batch).unwrap();
    memory::peak_bytes().unwrap() as f64 / trainer.parameter_count() as f64
}

/// Parameters and two moments are 12 bytes. A step that holds all gradients until its end has 17.1
/// on both devices. A compiled step, the GPU's, computes both moments and the parameter in one
/// kernel, which cannot reuse the memory of its arguments.
#[test]
fn an_update_frees_each_gradient() {
    memory::set_cache_limit(0).unwrap();
    for (device, most) in [(Device::Cpu, 14.0), (Device::Gpu, 15.5)] {
        let bytes = bytes_per_parameter(device);
        assert!(bytes < most, "{device}: {bytes}");
    }
}
