//! The dtypes of a LoRA step on a GPU: 16 bits except for trained parameters with their gradients and
//! moments, the logits with the loss, and sums in norms. The dtypes of a step with autocast.

use std::collections::BTreeMap;

use mlx_rs::Array;
use openelm_testing::tales;

use super::{Trainer, TrainerOptions};
use crate::{
    adapter::{Adapter, AdapterOptions},
    config::{Config, LayerWiseConfig, Preset},
    data::{
        batch::{Batch, Padding},
        dataset::Example,
    },
    generation::{LanguageModel, LoadOptions},
    mlx::{Device, Dtype, graph},
    weights::random_weights,
};

#[test]
fn a_step_computes_in_16_bits_and_updates_float32_parameters() {
    let _gpu = Device::Gpu.select();
    let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let config = model.model().config();
    let adapter = Adapter::new(model.model(), &AdapterOptions::default(), 0).unwrap();
    // The trace sees the operations that a compiled step fuses.
    let options = TrainerOptions {
        compile: Some(false),
        ..TrainerOptions::default()
    };
    let mut trainer = Trainer::new(model.model(), adapter, options).unwrap();
    let example = Example {
        tokens: (1..14).collect(),
        first_target: 1,
    };
    let batch = Batch::new(&[&example, &example], Padding::default());
    let graphs = graph::recorded(|| {
        trainer.step(&batch).unwrap();
    });
    assert_eq!(graphs.len(), 1);
    let step = &graphs[0];

    let in_float32 = |array: &Array| array.dtype() == mlx_rs::Dtype::Float32;
    assert!(trainer.state().all(in_float32));
    // Each gradient is cast once.
    let mut expected = BTreeMap::<Vec<usize>, usize>::new();
    for parameter in &trainer.parameters {
        let shape = parameter.shape().iter().map(|&side| side as usize);
        *expected.entry(shape.collect()).or_default() += 1;
    }
    let mut found = graph::widened(step);
    for (shape, count) in expected {
        assert_eq!(found.remove(&shape), Some(count), "{shape:?}");
    }
    let logits = vec![batch.target_count(), config.vocab_size()];
    assert_eq!(found.remove(&logits), Some(1));
    // The others are norms: once forward, once backward.
    let norms = 3 * config.num_transformer_layers() + 1;
    let casts: usize = found.values().sum();
    assert!(casts <= 2 * norms * graph::casts_of_a_norm(), "{found:?}");
    let of_norm = |shape: &Vec<usize>| {
        matches!(shape[..], [2, _, width] if width == config.model_dim())
            || matches!(shape[..], [2, _, _, width] if width == config.head_dim())
    };
    assert!(found.keys().all(of_norm), "{found:?}");
    let names = [
        "Matmul",
        "QuantizedMatmul",
        "Softmax",
        "Sigmoid",
        "Concatenate",
        "Split",
    ];
    assert_eq!(graph::float32_results(step, &names), [] as [&_; 0]);
}

/// CoreNet's mixed precision: products in bfloat16, and an f32 residual stream.
#[test]
fn autocast_computes_products_in_16_bits_and_the_rest_in_float32() {
    for device in [Device::Cpu, Device::Gpu] {
        let _device = device.select();
        let config = Config::layer_wise(LayerWiseConfig {
            num_transformer_layers: 2,
            model_dim: 64,
            head_dim: 16,
            vocab_size: 50,
            ..Preset::Size270M.settings()
        })
        .unwrap();
        let start = random_weights(&config, Dtype::Float32, 1).unwrap();
        let options = TrainerOptions {
            autocast: true,
            compile: Some(false),
            ..TrainerOptions::default()
        };
        let bfloat16 = Dtype::Bfloat16;
        let mut trainer = Trainer::from_scratch(config, start, bfloat16, options).unwrap();
        let tokens: Vec<u32> = (3..12).collect();
        let batch = Batch::packed(&[(tokens.as_slice(), &[])], 8);
        let graphs = graph::recorded(|| {
            trainer.step(&batch).unwrap();
        });
        let step = &graphs[0];
        let products = ["Matmul", "Sigmoid"];
        assert_eq!(graph::float32_results(step, &products), [] as [&_; 0]);
        // Two residual sums per layer, and their gradients.
        let residual = |operation: &&graph::Operation| {
            let output = &operation.outputs[0];
            operation.name == "Add" && output.shape == [1, 8, 64] && output.dtype == "float32"
        };
        assert!(step.iter().filter(residual).count() >= 4, "{device}");
        let in_float32 = |array: &Array| array.dtype() == mlx_rs::Dtype::Float32;
        assert!(trainer.state().all(in_float32));
    }
}

#[test]
fn autocast_needs_whole_float32_weights() {
    let model = LanguageModel::load(tales(), &LoadOptions::default()).unwrap();
    let options = TrainerOptions {
        autocast: true,
        ..TrainerOptions::default()
    };
    let adapter = Adapter::new(model.model(), &AdapterOptions::default(), 0).unwrap();
    let error = Trainer::new(model.model(), adapter, options).unwrap_err();
    assert_eq!(
        error.to_string(),
        "autocast: expected all weights to be trained, found an adapter"
    );
}
