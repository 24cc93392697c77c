//! The copies of trained parameters in the dtype of the computation, which compiled updates return.

use std::rc::Rc;

use mlx_rs::Array;
use openelm_testing::TempDir;
use serde_json::Value;

use super::{
    Optimizer, OptimizerKind, Trainer, TrainerOptions,
    step_function::{Arguments, StepFunction},
};
use crate::{
    adapter::{Adapter, TargetModules},
    config::{Config, LayerWiseConfig, Preset},
    data::batch::Batch,
    mlx::{Device, Dtype, compiles},
    model::Model,
    weights::random_weights,
};

/// Tied or untied, so that the embedding is a matrix of the logits or not.
fn config(tied: bool) -> Config {
    Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 64,
        head_dim: 16,
        vocab_size: 50,
        share_input_output_layers: tied,
        ..Preset::Size270M.settings()
    })
    .unwrap()
}

fn options() -> TrainerOptions {
    let mut options = TrainerOptions {
        optimizer: Optimizer {
            weight_decay: 0.1,
            ..Optimizer::new(OptimizerKind::AdamW)
        },
        clip_norm: Some(1.0),
        ..TrainerOptions::default()
    };
    options.schedule.learning_rate = 1e-3;
    options
}

fn whole(config: &Config, options: TrainerOptions) -> Trainer {
    let start = random_weights(config, Dtype::Float32, 3).unwrap();
    Trainer::from_scratch(config.clone(), start, Dtype::Bfloat16, options).unwrap()
}

/// Trains the matrices of the layers: no embedding is looked up in a trained parameter.
fn layers(config: &Config, options: TrainerOptions) -> Trainer {
    let start = random_weights(config, Dtype::Bfloat16, 3).unwrap();
    let model = Model::new(config.clone(), start, Dtype::Bfloat16).unwrap();
    let adapter = Adapter::full(&model, &TargetModules::all_layers()).unwrap();
    Trainer::new(&model, adapter, options).unwrap()
}

fn batch(rows: usize) -> Batch {
    let tokens: Vec<u32> = (3..20).collect();
    Batch::packed(&vec![(tokens.as_slice(), &[][..]); rows], 16)
}

fn values(array: &Array) -> Vec<f32> {
    let array = array.as_dtype(mlx_rs::Dtype::Float32).unwrap();
    array.to_vec_exact::<f32>().unwrap()
}

/// The copies are the parameters in bfloat16, bit for bit.
fn check_copies(trainer: &Trainer, what: &str) {
    let copies = trainer.copies.as_ref().unwrap();
    assert_eq!(copies.len(), trainer.parameters.len());
    for (copy, parameter) in copies.iter().zip(&trainer.parameters) {
        assert_eq!(copy.dtype(), mlx_rs::Dtype::Bfloat16);
        let cast = parameter.as_dtype(mlx_rs::Dtype::Bfloat16).unwrap();
        assert_eq!(values(copy), values(&cast), "{what}");
    }
}

#[test]
fn copies_change_no_bit_of_a_step() {
    let _gpu = Device::Gpu.select();
    let options = TrainerOptions {
        compile: Some(false),
        ..options()
    };
    for mut trainer in [
        whole(&config(true), options.clone()),
        whole(&config(false), options.clone()),
        layers(&config(true), options.clone()),
    ] {
        trainer.step(&batch(2)).unwrap();
        assert!(trainer.copies.is_none());
        let results = [false, true].map(|copies| {
            let mut of_batch = trainer.batch_arguments(&batch(2), None, 0, None).unwrap();
            let all = || trainer.trainable.copies(&trainer.parameters).unwrap();
            of_batch.copies = copies.then(all);
            let arguments = Arguments {
                parameters: trainer.parameters.clone(),
                batch: Some(of_batch),
                gathered: None,
                share: None,
                update: Some(trainer.update_arguments(1e-3)),
            };
            let trainable = Rc::clone(&trainer.trainable);
            let function = StepFunction::new(trainable, &options, false);
            let results = function.call(arguments, false).unwrap().into_arrays();
            results.iter().map(values).collect::<Vec<_>>()
        });
        assert!(results[0] == results[1]);
    }
}

#[test]
fn each_update_returns_the_copies_of_its_parameters() {
    let _gpu = Device::Gpu.select();
    if !compiles() {
        return;
    }
    let accumulated = TrainerOptions {
        grad_accumulation_steps: 2,
        ..options()
    };
    for (what, mut trainer) in [
        ("all weights", whole(&config(true), options())),
        ("layers", layers(&config(true), options())),
        ("accumulated", whole(&config(false), accumulated)),
    ] {
        check_copies(&trainer, what);
        for nth in 0..4 {
            trainer.step(&batch(1 + nth % 2)).unwrap();
            check_copies(&trainer, what);
        }
        trainer.update(&[batch(1), batch(2)], None).unwrap();
        check_copies(&trainer, what);
    }
}

#[test]
fn a_compiled_training_with_copies_equals_one_without() {
    let _gpu = Device::Gpu.select();
    if !compiles() {
        return;
    }
    let config = config(true);
    let [(losses, found), (expected_losses, expected)] = [true, false].map(|compile| {
        let options = TrainerOptions {
            compile: Some(compile),
            ..options()
        };
        let mut trainer = whole(&config, options);
        assert_eq!(trainer.copies.is_some(), compile);
        let mut losses: Vec<f32> = Vec::new();
        for nth in 0..6 {
            losses.push(trainer.step(&batch(1 + nth % 2)).unwrap().loss);
        }
        losses.push(trainer.evaluate([&batch(1)]).unwrap() as f32);
        let parameters: Vec<f32> = trainer.parameters.iter().flat_map(values).collect();
        (losses, parameters)
    });
    // The activations are in bfloat16, and a compiled chain rounds only its result.
    for (a, b) in losses.iter().zip(&expected_losses) {
        assert!((a - b).abs() < 2e-2, "{losses:?} {expected_losses:?}");
    }
    let apart = found.iter().zip(&expected).map(|(a, b)| (a - b).abs());
    let mean = apart.sum::<f32>() / found.len() as f32;
    assert!(mean < 1.5e-4, "{mean}");
}

#[test]
fn a_resumed_training_gives_the_same_bytes() {
    let folder = TempDir::new();
    for device in [Device::Gpu, Device::Cpu] {
        let _device = device.select();
        let state = |trainer: &Trainer, name: &str| {
            let path = folder.join(format!("{name}.safetensors"));
            trainer.save_state(&path, &Value::Null).unwrap();
            std::fs::read(path).unwrap()
        };
        let mut trainer = whole(&config(true), options());
        for _ in 0..3 {
            trainer.step(&batch(2)).unwrap();
        }
        state(&trainer, "before");
        let mut resumed = whole(&config(true), options());
        resumed.restore(&folder.join("before.safetensors")).unwrap();
        assert_eq!(
            resumed.copies.is_some(),
            device == Device::Gpu && compiles()
        );
        for trainer in [&mut trainer, &mut resumed] {
            for _ in 0..3 {
                trainer.step(&batch(2)).unwrap();
            }
        }
        let after = state(&trainer, "after");
        assert!(after == state(&resumed, "resumed"), "{device}");
    }
}

#[test]
fn only_compiled_steps_in_16_bits_on_a_gpu_have_copies() {
    let config = config(true);
    let start = |dtype, options: TrainerOptions| {
        let start = random_weights(&config, Dtype::Float32, 3).unwrap();
        Trainer::from_scratch(config.clone(), start, dtype, options).unwrap()
    };
    let compiled = TrainerOptions {
        compile: Some(true),
        ..options()
    };
    let checkpointed = TrainerOptions {
        grad_checkpoint: true,
        ..compiled.clone()
    };
    let averaged = TrainerOptions {
        ema_decay: Some(0.9),
        ..compiled.clone()
    };
    for (device, dtype, options, has) in [
        (Device::Gpu, Dtype::Bfloat16, &compiled, compiles()),
        (Device::Gpu, Dtype::Float32, &compiled, false),
        (Device::Gpu, Dtype::Bfloat16, &checkpointed, false),
        (Device::Gpu, Dtype::Bfloat16, &averaged, false),
        (Device::Cpu, Dtype::Bfloat16, &compiled, false),
    ] {
        let _device = device.select();
        let trainer = start(dtype, options.clone());
        assert_eq!(trainer.copies.is_some(), has, "{device}, {dtype}");
    }
}
