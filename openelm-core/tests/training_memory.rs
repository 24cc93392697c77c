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
fn bytes_per_parameter(device: Device, compile: bool, clip_norm: Option<f32>) -> f64 {
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
    let options = TrainerOptions {
        compile: Some(compile),
        clip_norm,
        ..TrainerOptions::default()
    };
    let mut trainer = Trainer::from_scratch(config, start, Dtype::Float32, options).unwrap();
    let tokens: Vec<u32> = (3..12).collect();
    let batch = Batch::packed(&[(tokens.as_slice(), &[])], 8);
    trainer.step(&batch).unwrap();
    memory::reset_peak().unwrap();
    trainer.step(&batch).unwrap();
    memory::peak_bytes().unwrap() as f64 / trainer.parameter_count() as f64
}

/// Parameters and two moments are 12 bytes, and gradients 4. A step that holds all gradients until
/// its end has 17.1. With clipping all gradients exist when their norm is computed.
///
/// A compiled step computes both moments and the parameter in one kernel, which cannot reuse the
/// memory of its arguments. Evaluated at once, it has 14.8, and 19.0 with clipping.
#[test]
fn an_update_frees_each_gradient() {
    memory::set_cache_limit(0).unwrap();
    for device in [Device::Cpu, Device::Gpu] {
        for compile in [false, true] {
            for (clip_norm, most) in [(None, 14.2), (Some(1.0), 17.4)] {
                let bytes = bytes_per_parameter(device, compile, clip_norm);
                assert!(
                    bytes < most,
                    "{device}, compiled {compile}, clipped to {clip_norm:?}: {bytes}"
                );
            }
        }
    }
}
