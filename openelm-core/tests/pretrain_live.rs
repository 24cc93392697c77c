//! Compares pre-training steps with mlx-lm's network under MLX's optimizer and automatic
//! differentiation. `parity/pretrain.py` writes the results to the folder `OPENELM_PRETRAIN`; `make
//! parity` runs everything.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::{
    fs,
    path::{Path, PathBuf},
};

use mlx_rs::Array;
use openelm_core::{
    Config, Device, Dtype, Model,
    adapter::Adapter,
    internal::{Batch, ReadOptions, Weights},
    pretrain::Recipe,
    runtime,
    train::{Optimizer, Trainer, TrainerOptions},
    weights::Checkpoint,
};
use openelm_testing::TempDir;
use serde::{Deserialize, de::DeserializeOwned};

/// Largest relative difference of a step's loss.
const LOSS_BOUND: f64 = 1e-4;
/// Largest distance of a trained tensor, relative to its norm.
const TENSOR_BOUND: f32 = 1e-3;
/// The same with products in bfloat16, whose rounding is 4e-3.
const AUTOCAST_BOUNDS: (f64, f32) = (2e-3, 2e-2);

#[derive(Deserialize)]
struct Case {
    clip_norm: f32,
    weight_decay: f32,
    z_loss: f32,
    label_smoothing: f32,
    learning_rate: f64,
    warmup: u64,
    tied: bool,
    autocast: bool,
    adapter: Option<String>,
    steps: Vec<Expected>,
}

#[derive(Deserialize)]
struct Expected {
    batches: Vec<Vec<Sequence>>,
    loss: f64,
    z_loss: f64,
    norm: f64,
    rate: f32,
    targets: usize,
}

#[derive(Deserialize)]
struct Sequence {
    tokens: Vec<u32>,
    starts: Vec<usize>,
}

#[test]
#[ignore = "needs files from Python: make parity"]
fn pretraining_matches_mlx_lm_network() {
    let folder = PathBuf::from(std::env::var_os("OPENELM_PRETRAIN").expect("set by parity/run.sh"));
    let index: Vec<String> = read(&folder.join("index.json"));
    assert!(index.len() >= 8, "only {} cases", index.len());
    for name in &index {
        // The code of a GPU, with compiled steps, on the same backend.
        for device in [Device::Gpu, Device::Cpu] {
            for grad_checkpoint in [false, true] {
                compare(&folder, name, device, grad_checkpoint);
            }
        }
    }
}

fn compare(folder: &Path, name: &str, device: Device, grad_checkpoint: bool) {
    let _device = device.select();
    let case: Case = read(&folder.join(name).join("case.json"));
    let recipe = Recipe {
        iters: case.steps.len() as u64,
        learning_rate: case.learning_rate,
        warmup: case.warmup,
    };
    let options = TrainerOptions {
        clip_norm: (case.clip_norm > 0.0).then_some(case.clip_norm),
        z_loss: case.z_loss,
        label_smoothing: case.label_smoothing,
        grad_checkpoint,
        autocast: case.autocast,
        optimizer: Optimizer {
            weight_decay: case.weight_decay,
            ..recipe.trainer().optimizer
        },
        ..recipe.trainer()
    };
    let base = folder.join(if case.tied { "base" } else { "base-untied" });
    let config = Config::load(&base).unwrap();
    let checkpoint = Checkpoint::open(&base).unwrap();
    checkpoint.check(&config).unwrap();
    let how = ReadOptions {
        dtype: Dtype::Float32,
        keep_quantized: false,
    };
    let weights = Weights::read(&checkpoint, &config, how, &mut |_, _| {}).unwrap();
    let mut trainer = if case.adapter.is_some() {
        let model = Model::new(config.clone(), weights, Dtype::Float32).unwrap();
        let adapter = Adapter::load(folder.join(name).join("start")).unwrap();
        Trainer::new(&model, adapter, options).unwrap()
    } else {
        Trainer::from_scratch(config.clone(), weights, Dtype::Float32, options).unwrap()
    };

    let (loss_bound, tensor_bound) = if case.autocast {
        AUTOCAST_BOUNDS
    } else {
        (LOSS_BOUND, TENSOR_BOUND)
    };
    let (mut worst, mut furthest) = (0.0_f64, 0.0_f32);
    for (i, expected) in (1..).zip(&case.steps) {
        let batches = expected.batches.iter().map(|rows| {
            let rows: Vec<(&[u32], &[usize])> = rows
                .iter()
                .map(|s| (&s.tokens[..], &s.starts[..]))
                .collect();
            Batch::packed(&rows, 144)
        });
        let batches: Vec<Batch> = batches.collect();
        let step = trainer.update(&batches, None).unwrap();
        assert_eq!(
            step.targets, expected.targets,
            "{name}: targets of step {i}"
        );
        assert_eq!(
            step.learning_rate, expected.rate,
            "{name}: rate of step {i}"
        );
        let off =
            |found: f32, reference: f64| (f64::from(found) - reference).abs() / reference.abs();
        worst = worst.max(off(step.loss, expected.loss));
        worst = worst.max(off(step.z_loss, expected.z_loss));
        if let Some(norm) = step.gradient_norm {
            let most = if case.autocast { 2e-2 } else { 1e-3 };
            assert!(off(norm, expected.norm) <= most, "{name}: norm of step {i}");
        }
        if i == 1 || i == case.steps.len() {
            let file = folder.join(name).join(format!("after-{i}.safetensors"));
            let reference = Array::load_safetensors(file).unwrap();
            let found = trainer.adapter();
            let written = TempDir::new();
            found.save(&written, &config).unwrap();
            let found = Array::load_safetensors(written.join("adapters.safetensors")).unwrap();
            assert_eq!(found.len(), reference.len(), "{name}");
            for (tensor, reference) in &reference {
                let off = length(&found[tensor].subtract(reference).unwrap()) / length(reference);
                assert!(
                    off <= tensor_bound,
                    "{name}: {tensor} is off by {off:e} after {i}"
                );
                furthest = furthest.max(off);
            }
        }
    }
    let compiled = device == Device::Gpu && runtime::compiles();
    assert_eq!(trainer.compiled_functions() > 0, compiled, "{name}");
    assert!(worst <= loss_bound, "{name}: losses differ by {worst:e}");
    let mode = if grad_checkpoint { "checkpointed" } else { "" };
    eprintln!("{name:20} {device} {mode:12} loss {worst:.1e}  tensors {furthest:.1e}");
}

fn length(array: &Array) -> f32 {
    let square = array.square().unwrap().sum(false).unwrap();
    square.sqrt().unwrap().try_item_exact::<f32>().unwrap()
}

fn read<T: DeserializeOwned>(path: &Path) -> T {
    let text = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_slice(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
