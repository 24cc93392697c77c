//! A tiny model, documents for it, and files of a run.

use std::path::Path;

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype,
    config::{LayerWiseConfig, Preset},
    corpus::Sequence,
    internal::{Batch, random_weights},
    pretrain::{MemorySource, Pretrain, PretrainEvent, PretrainOptions, Recipe},
    train::{Trainer, TrainerOptions},
};
use openelm_testing::TempDir;

pub(crate) fn config() -> Config {
    Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 64,
        head_dim: 16,
        vocab_size: 50,
        max_context_length: 64,
        ..Preset::Size270M.settings()
    })
    .unwrap()
}

pub(crate) fn trainer(dtype: Dtype, options: TrainerOptions) -> Trainer {
    let start = random_weights(&config(), Dtype::Float32, 3).unwrap();
    Trainer::from_scratch(config(), start, dtype, options).unwrap()
}

/// A tensor's name and values.
pub(crate) type Named = (String, Vec<f32>);

pub(crate) const RECIPE: Recipe = Recipe {
    iters: 12,
    learning_rate: 2e-3,
    warmup: 3,
};

/// Distinct documents of different lengths, each with BOS and EOS.
pub(crate) fn documents(count: u32) -> Vec<Vec<u32>> {
    let text = |i: u32| (0..3 + i % 5).map(move |j| 3 + (7 * i + 11 * j) % 47);
    let document = |i| [1].into_iter().chain(text(i)).chain([2]).collect();
    (0..count).map(document).collect()
}

/// The documents concatenated, in rows of `length` tokens and a last target.
pub(crate) fn packed(documents: &[Vec<u32>], length: usize) -> Vec<Sequence> {
    let mut starts = Vec::new();
    let mut stream = Vec::new();
    for document in documents {
        starts.push(stream.len());
        stream.extend(document);
    }
    let rows = (0..stream.len() - 1).step_by(length).map(|from| {
        let to = stream.len().min(from + length + 1);
        let within = starts.iter().filter(|start| (from..to).contains(start));
        Sequence {
            tokens: stream[from..to].to_vec(),
            document_starts: within.map(|start| start - from).collect(),
        }
    });
    rows.collect()
}

pub(crate) fn batch(sequences: &[Sequence], length: usize) -> Batch {
    let rows: Vec<(&[u32], &[usize])> = sequences
        .iter()
        .map(|s| (&s.tokens[..], &s.document_starts[..]))
        .collect();
    Batch::packed(&rows, length)
}

/// The trainer's weights by name.
pub(crate) fn weights(trainer: &Trainer) -> Vec<Named> {
    let folder = TempDir::new();
    trainer.adapter().save(&folder, &config()).unwrap();
    let read = Array::load_safetensors(folder.join("adapters.safetensors")).unwrap();
    let mut read: Vec<Named> = read
        .into_iter()
        .map(|(name, array)| (name, array.to_vec_exact::<f32>().unwrap()))
        .collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    read
}

/// The largest distance between two sets of weights, relative to a tensor's norm.
pub(crate) fn distance(a: &[Named], b: &[Named]) -> f64 {
    assert_eq!(a.len(), b.len());
    let of = |((name, a), (other, b)): (&Named, &Named)| {
        assert_eq!(name, other);
        let square = |x: f64| x * x;
        let length: f64 = a.iter().map(|&x| square(x.into())).sum();
        let off = a
            .iter()
            .zip(b)
            .map(|(&a, &b)| square(f64::from(a) - f64::from(b)));
        (off.sum::<f64>() / length).sqrt()
    };
    a.iter().zip(b).map(of).fold(0.0, f64::max)
}

pub(crate) fn options(recipe: &Recipe) -> PretrainOptions {
    PretrainOptions {
        batch_size: 4,
        micro_batch_size: 2,
        save_every: 2,
        keep_checkpoints: 3,
        average_last: Some(3),
        ..PretrainOptions::new(*recipe)
    }
}

pub(crate) fn source(documents: u32) -> Box<MemorySource> {
    let rows = packed(&self::documents(documents), 24);
    Box::new(MemorySource::new(rows, (0, 1)))
}

pub(crate) fn finish(run: &mut Pretrain) -> Vec<PretrainEvent> {
    run.map(Result::unwrap).collect()
}

pub(crate) fn tensors(folder: &Path) -> Vec<Named> {
    let read = Array::load_safetensors(folder.join("model.safetensors")).unwrap();
    let mut read: Vec<Named> = read
        .into_iter()
        .map(|(name, array)| (name, array.to_vec_exact::<f32>().unwrap()))
        .collect();
    read.sort_by(|a, b| a.0.cmp(&b.0));
    read
}
