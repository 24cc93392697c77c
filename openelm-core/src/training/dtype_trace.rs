//! The dtypes of a LoRA step on a GPU: 16 bits except for trained parameters with their gradients and
//! moments, the logits with the loss, and sums in norms.

use std::collections::BTreeMap;

use mlx_rs::Array;
use openelm_testing::tales;

use super::{Trainer, TrainerOptions};
use crate::{
    adapter::{Adapter, AdapterOptions},
    data::{
        batch::{Batch, Padding},
        dataset::Example,
    },
    generation::{LanguageModel, LoadOptions},
    mlx::{Device, graph},
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
