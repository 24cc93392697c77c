//! The code of a GPU, run on MLX's CPU backend.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    Device, Dtype,
    generation::{GenerateOptions, LanguageModel, LoadOptions},
};
use openelm_testing::tales;

/// The text that the code for `device` generates in float32, with or without fused attention.
fn text(device: Device, fused: bool) -> String {
    let _device = device.select();
    let options = LoadOptions {
        dtype: Some(Dtype::Float32),
        ..LoadOptions::default()
    };
    let mut model = LanguageModel::load(tales(), &options).unwrap();
    model.model_mut().set_fused_attention(fused);
    let options = GenerateOptions {
        max_tokens: 40,
        ..GenerateOptions::default()
    };
    let mut generation = model.generate("Once upon a time", options).unwrap();
    for event in &mut generation {
        event.unwrap();
    }
    generation.text().to_owned()
}

#[test]
fn text_of_the_gpus_code_is_the_cpus() {
    let expected = text(Device::Cpu, true);
    assert!(expected.len() > 40, "{expected}");
    assert_eq!(text(Device::Gpu, true), expected);
    assert_eq!(text(Device::Gpu, false), expected);
}
