//! Runs steps with the code of a GPU on the CPU backend, for `bench/launches.py`:
//! `launches KIND FOLDER STEPS`, where KIND is `decode`, `lora`, `dora`, `full` or `pretrain` and
//! FOLDER a model in bfloat16.
#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a program of the benchmark"
)]

use std::{env, slice};

use openelm_core::{
    Device, Dtype, LanguageModel, LoadOptions, Model,
    adapter::{Adapter, LoraOptions, TargetModules},
    generation::GenerateOptions,
    internal::{Batch, random_weights},
    pretrain::Recipe,
    train::{Trainer, TrainerOptions},
};

/// Rows and length of a batch.
const ROWS: usize = 4;
const LENGTH: usize = 32;

fn main() {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [kind, folder, steps] = arguments.as_slice() else {
        panic!("expected KIND FOLDER STEPS");
    };
    let steps: usize = steps.parse().unwrap();
    let _gpu = Device::Gpu.select();
    let options = LoadOptions {
        dtype: Some(Dtype::Bfloat16),
        ..LoadOptions::default()
    };
    let loaded = LanguageModel::load(folder, &options).unwrap();
    match kind.as_str() {
        "decode" => decode(&loaded, steps),
        "lora" => finetune(loaded.model(), &lora(loaded.model(), false), steps),
        "dora" => finetune(loaded.model(), &lora(loaded.model(), true), steps),
        "full" => {
            let targets = TargetModules::default();
            let adapter = Adapter::full(loaded.model(), &targets).unwrap();
            finetune(loaded.model(), &adapter, steps);
        }
        "pretrain" => pretrain(loaded.model(), steps),
        _ => panic!("unknown kind {kind}"),
    }
}

fn decode(model: &LanguageModel, steps: usize) {
    let options = GenerateOptions {
        max_tokens: steps,
        ignore_eos: true,
        ..GenerateOptions::default()
    };
    for event in model.generate("Once upon a time", options).unwrap() {
        event.unwrap();
    }
}

fn lora(model: &Model, dora: bool) -> Adapter {
    let options = LoraOptions {
        dora,
        ..LoraOptions::default()
    };
    Adapter::lora(model, &TargetModules::default(), &options, 0).unwrap()
}

fn finetune(model: &Model, adapter: &Adapter, steps: usize) {
    let mut trainer = Trainer::new(model, adapter.clone(), TrainerOptions::default()).unwrap();
    for _ in 0..steps {
        trainer.step(&batch(&[])).unwrap();
    }
}

fn pretrain(model: &Model, steps: usize) {
    let recipe = Recipe {
        iters: steps as u64,
        learning_rate: 1e-3,
        warmup: 1,
    };
    let config = model.config().clone();
    let start = random_weights(&config, Dtype::Float32, 0).unwrap();
    let options = recipe.trainer();
    let mut trainer = Trainer::from_scratch(config, start, Dtype::Bfloat16, options).unwrap();
    for _ in 0..steps {
        trainer
            .update(slice::from_ref(&batch(&[LENGTH / 2])), None)
            .unwrap();
    }
}

/// Rows in which documents begin at `starts`.
fn batch(starts: &[usize]) -> Batch {
    let tokens: Vec<u32> = (0..=LENGTH as u32).map(|i| 3 + i * 7 % 40).collect();
    let rows = vec![(tokens.as_slice(), starts); ROWS];
    Batch::packed(&rows, LENGTH)
}
