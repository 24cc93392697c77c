//! A tiny model and adapters for it.

use mlx_rs::{Array, random};
use openelm_core::{
    Config, Dtype, Model,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    internal::random_weights,
};
use openelm_testing::TempDir;

pub(crate) fn config() -> Config {
    Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 64,
        head_dim: 16,
        vocab_size: 50,
        ..Preset::Size270M.settings()
    })
    .unwrap()
}

pub(crate) fn model() -> Model {
    let weights = random_weights(&config(), Dtype::Float32, 3).unwrap();
    Model::new(config(), weights, Dtype::Float32).unwrap()
}

/// An adapter with all tensors moved away from their initial values, so that none is zero.
pub(crate) fn stirred(adapter: &Adapter, seed: u64) -> Adapter {
    changed(adapter, |name, array| {
        let seed = seed + name.len() as u64;
        let key = random::key(seed).unwrap();
        let noise = random::normal::<f32>(array.shape(), None, Some(0.1), &key).unwrap();
        array.add(noise).unwrap()
    })
}

/// The adapter with each tensor, by its mlx-lm name, mapped by `change`.
pub(crate) fn changed(adapter: &Adapter, mut change: impl FnMut(&str, &Array) -> Array) -> Adapter {
    let folder = TempDir::new();
    adapter.save(&folder, &config()).unwrap();
    let path = folder.join("adapters.safetensors");
    let tensors = Array::load_safetensors(&path).unwrap();
    let tensors: Vec<(String, Array)> = tensors
        .iter()
        .map(|(name, array)| (name.clone(), change(name, array)))
        .collect();
    for (_, array) in &tensors {
        array.eval().unwrap();
    }
    let refs = tensors.iter().map(|(name, array)| (name.as_str(), array));
    Array::save_safetensors(refs, None, &path).unwrap();
    Adapter::load(&folder).unwrap()
}

pub(crate) fn tensors(adapter: &Adapter) -> std::collections::HashMap<String, Array> {
    let folder = TempDir::new();
    adapter.save(&folder, &config()).unwrap();
    let tensors = Array::load_safetensors(folder.join("adapters.safetensors")).unwrap();
    for array in tensors.values() {
        array.eval().unwrap();
    }
    tensors
}

pub(crate) fn lora(keys: Keys, options: LoraOptions) -> Adapter {
    let targets = TargetModules {
        num_layers: None,
        keys,
    };
    Adapter::lora(
        &model(),
        &targets,
        &LoraOptions {
            rank: 3,
            scale: 2.0,
            ..options
        },
        5,
    )
    .unwrap()
}
