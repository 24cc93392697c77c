//! Memory of a fine-tuning beside its estimate. A single test, because MLX counts memory per process.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use openelm_core::{
    Config, Dtype, Model,
    adapter::{Adapter, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    finetune::{DataOptions, FinetuneMemory, FinetuneOptions},
    internal::{Batch, random_weights},
    memory,
    train::Trainer,
};

/// The measured peak of a step beside the model and the estimate, in bytes.
fn measure(
    dtype: Dtype,
    vocab_size: usize,
    [batch_size, length]: [usize; 2],
    grad_checkpoint: bool,
) -> [f64; 2] {
    let config = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 6,
        vocab_size,
        model_dim: 256,
        head_dim: 32,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    let weights = random_weights(&config, dtype, 3).unwrap();
    let model = Model::new(config, weights, dtype).unwrap();
    let targets = TargetModules::default();
    let adapter = Adapter::lora(&model, &targets, &LoraOptions::default(), 1).unwrap();
    let mut options = FinetuneOptions {
        batch_size,
        max_seq_length: length,
        ..FinetuneOptions::default()
    };
    options.trainer.grad_checkpoint = grad_checkpoint;
    let rows = DataOptions::default();
    let estimate = FinetuneMemory::of(&model, &adapter, &options, &rows).unwrap();
    let before = memory::active_bytes().unwrap();
    let mut trainer = Trainer::new(&model, adapter, options.trainer).unwrap();
    let tokens: Vec<u32> = (0..=length as u32).map(|id| 3 + id % 7_000).collect();
    let rows = vec![(tokens.as_slice(), &[][..]); batch_size];
    let batch = Batch::packed(&rows, length);
    trainer.step(&batch).unwrap();
    memory::reset_peak().unwrap();
    trainer.step(&batch).unwrap();
    let peak = memory::peak_bytes().unwrap() - before;
    [peak as f64, estimate.total() as f64]
}

#[test]
fn the_estimate_is_a_close_upper_bound() {
    memory::set_cache_limit(0).unwrap();
    for (dtype, vocab_size, rows) in [
        (Dtype::Float32, 8_000, [4, 64]),
        (Dtype::Float32, 8_000, [1, 384]),
        (Dtype::Bfloat16, 8_000, [4, 64]),
        (Dtype::Bfloat16, 8_000, [1, 256]),
        (Dtype::Bfloat16, 32_000, [4, 64]),
    ] {
        for checkpoint in [false, true] {
            let [peak, estimate] = measure(dtype, vocab_size, rows, checkpoint);
            let ratio = estimate / peak;
            assert!(
                (1.0..2.5).contains(&ratio),
                "{dtype}, {vocab_size} tokens, rows {rows:?}, {checkpoint}: {ratio} \
                 ({estimate} / {peak})"
            );
        }
    }
}
