//! Training steps that MLX compiles, compared with the same steps without compilation.

#![allow(clippy::unwrap_used, clippy::print_stderr, reason = "tests may panic")]

use std::process::Command;

use mlx_rs::Array;
use openelm_core::{
    Config, Device, Dtype, Model,
    adapter::{Adapter, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    dataset::Example,
    internal::{Batch, Padding, random_weights},
    runtime,
    train::{
        Optimizer, OptimizerKind, Preference, PreferenceLoss, Schedule, Step, Trainer,
        TrainerOptions,
    },
};
use openelm_testing::TempDir;

fn config() -> Config {
    Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 64,
        head_dim: 16,
        vocab_size: 50,
        ..Preset::Size270M.settings()
    })
    .unwrap()
}

fn model() -> Model {
    let weights = random_weights(&config(), Dtype::Float32, 3).unwrap();
    Model::new(config(), weights, Dtype::Float32).unwrap()
}

/// Rows of `length` targets; with `starts`, of several documents, whose last tokens have none.
fn batch(rows: usize, length: usize, starts: &[usize]) -> Batch {
    let tokens = |row: usize| (0..=length).map(move |i| (3 + (row * 5 + i * 7) % 40) as u32);
    let rows: Vec<Vec<u32>> = (0..rows).map(|row| tokens(row).collect()).collect();
    let rows: Vec<_> = rows.iter().map(|row| (row.as_slice(), starts)).collect();
    Batch::packed(&rows, length)
}

fn options(kind: OptimizerKind) -> TrainerOptions {
    TrainerOptions {
        optimizer: Optimizer::new(kind),
        schedule: Schedule {
            learning_rate: 1e-3,
            warmup: 2,
            ..Schedule::default()
        },
        ..TrainerOptions::default()
    }
}

/// False, loudly, where MLX has no compiler.
fn compiles() -> bool {
    let compiles = runtime::compiles();
    if !compiles {
        eprintln!("SKIPPED: MLX compiles nothing here: g++ is missing");
    }
    compiles
}

/// An adapter, or all weights.
type Start = Option<Adapter>;

/// The steps and final tensors of a training on batches of different shapes.
fn train(start: &Start, options: &TrainerOptions, compile: bool) -> (Vec<Step>, Vec<f32>) {
    let options = TrainerOptions {
        compile: Some(compile),
        ..options.clone()
    };
    let mut trainer = match start {
        Some(adapter) => Trainer::new(&model(), adapter.clone(), options).unwrap(),
        None => {
            let weights = random_weights(&config(), Dtype::Float32, 3).unwrap();
            Trainer::from_scratch(config(), weights, Dtype::Float32, options).unwrap()
        }
    };
    let batches = [
        batch(2, 8, &[]),
        batch(2, 12, &[5]),
        batch(2, 8, &[]),
        batch(2, 12, &[3, 7]),
    ];
    let mut steps: Vec<Step> = batches.iter().map(|b| trainer.step(b).unwrap()).collect();
    // Pre-training: one batch, and the gradients of several.
    steps.push(trainer.update(&batches[..1], None).unwrap());
    steps.push(trainer.update(&batches[..3], None).unwrap());
    assert_eq!(trainer.compiled_functions() > 0, compile);
    (steps, tensors(&trainer))
}

/// The values of the trained tensors.
fn tensors(trainer: &Trainer) -> Vec<f32> {
    let folder = TempDir::new();
    trainer.adapter().save(&folder, &config()).unwrap();
    let tensors = Array::load_safetensors(folder.join("adapters.safetensors")).unwrap();
    let mut tensors: Vec<_> = tensors.into_iter().collect();
    tensors.sort_by(|(a, _), (b, _)| a.cmp(b));
    let values = tensors
        .iter()
        .flat_map(|(_, array)| array.to_vec_exact::<f32>().unwrap());
    values.collect()
}

/// Compares a training without compilation, the first one, with a compiled one.
fn compare(what: &str, trainings: [(Vec<Step>, Vec<f32>); 2]) {
    let [(plain, expected), (compiled, found)] = trainings;
    for (a, b) in plain.iter().zip(&compiled) {
        let close = |a: f32, b: f32| (a - b).abs() <= 2e-5 * a.abs().max(1.0);
        assert!(close(a.loss, b.loss), "{what}: {a:?} {b:?}");
        assert!(close(a.z_loss, b.z_loss), "{what}: {a:?} {b:?}");
        let norms = [a, b].map(|step| step.gradient_norm.unwrap_or_default());
        assert!(close(norms[0], norms[1]), "{what}: {a:?} {b:?}");
        assert_eq!((a.iteration, a.targets), (b.iteration, b.targets));
        assert_eq!(a.learning_rate, b.learning_rate);
    }
    let apart = expected.iter().zip(&found).map(|(a, b)| (a - b).abs());
    let apart = apart.fold(0.0, f32::max);
    // Adam divides small gradients by their size, which magnifies the rounding errors of a few.
    assert!(
        apart < 2e-4,
        "{what}: a weight differs by {apart}, a tenth of a step"
    );
}

fn check(what: &str, start: &Start, options: &TrainerOptions) {
    compare(
        what,
        [false, true].map(|compile| train(start, options, compile)),
    );
}

/// The steps and final tensors of a training on pairs with different numbers of targets, all of
/// one compiled function.
fn prefer(start: &Start, loss: PreferenceLoss, compile: bool) -> (Vec<Step>, Vec<f32>) {
    let options = TrainerOptions {
        compile: Some(compile),
        ..options(OptimizerKind::Adam)
    };
    let adapter = start.clone().unwrap();
    let mut trainer = Trainer::new(&model(), adapter, options).unwrap();
    let lengths = [[5, 9, 3, 7], [12, 2, 6, 6], [9, 9, 1, 12]];
    let batches = lengths.map(|lengths: [u32; 4]| {
        let rows = lengths.map(|length| Example {
            tokens: (3..20).map(|i| (i * length) % 50).collect(),
            first_target: 17 - length as usize,
        });
        Batch::new(&rows.iter().collect::<Vec<_>>(), Padding::default())
    });
    let steps = (0..6).map(|nth| {
        let batch = &batches[nth % 3];
        let preference = Preference {
            loss,
            beta: 0.3,
            reference: lengths[nth % 3].map(|length| length as f32 * -3.5).to_vec(),
        };
        trainer.step_preference(batch, &preference).unwrap()
    });
    let steps = steps.collect();
    assert_eq!(trainer.compiled_functions(), usize::from(compile));
    (steps, tensors(&trainer))
}

#[test]
fn preferences_train_like_without_compilation() {
    let _gpu = Device::Gpu.select();
    if !compiles() {
        return;
    }
    let adapter = lora(&LoraOptions::default());
    for loss in [PreferenceLoss::Sigmoid, PreferenceLoss::Hinge] {
        compare(
            &format!("{loss:?}"),
            [false, true].map(|compile| prefer(&adapter, loss, compile)),
        );
    }
}

fn lora(options: &LoraOptions) -> Start {
    let targets = TargetModules::all_layers();
    Some(Adapter::lora(&model(), &targets, options, 5).unwrap())
}

#[test]
fn a_compiler_on_the_path_compiles() {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).any(|folder| folder.join("g++").is_file());
    if found || cfg!(target_os = "macos") {
        assert!(runtime::compiles());
    } else {
        eprintln!("SKIPPED: there is no g++");
    }
}

#[test]
fn without_a_compiler_the_same_steps_run() {
    let folder = TempDir::new();
    let child = Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "trains_without_a_compiler"])
        // MLX keeps compiled functions in the folder of temporary files.
        .envs([("PATH", "/nowhere"), ("TMPDIR", folder.to_str().unwrap())])
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&child.stdout);
    assert!(
        child.status.success() && text.contains("1 passed"),
        "{text}"
    );
}

#[test]
#[ignore = "run by without_a_compiler_the_same_steps_run"]
fn trains_without_a_compiler() {
    let _gpu = Device::Gpu.select();
    if cfg!(target_os = "linux") {
        assert!(!runtime::compiles());
    }
    let adapter = lora(&LoraOptions::default()).unwrap();
    let options = options(OptimizerKind::Adam);
    let mut trainer = Trainer::new(&model(), adapter, options).unwrap();
    // The first learning rate is 0.
    let losses = [(); 4].map(|()| trainer.step(&batch(2, 8, &[])).unwrap().loss);
    assert!(losses[3] < losses[0], "{losses:?}");
    if cfg!(target_os = "linux") {
        assert_eq!(trainer.compiled_functions(), 0);
    }
}

#[test]
fn adapters_train_like_without_compilation() {
    let _gpu = Device::Gpu.select();
    if !compiles() {
        return;
    }
    let dropped = LoraOptions {
        dropout: 0.3,
        ..LoraOptions::default()
    };
    let accumulated = TrainerOptions {
        grad_accumulation_steps: 2,
        ..options(OptimizerKind::Adam)
    };
    check("lora", &lora(&dropped), &accumulated);
    let dora = LoraOptions {
        dora: true,
        ..LoraOptions::default()
    };
    let checkpointed = TrainerOptions {
        grad_checkpoint: true,
        ..options(OptimizerKind::Lion)
    };
    check("dora", &lora(&dora), &options(OptimizerKind::Sgd));
    check("dora, checkpointed", &lora(&dora), &checkpointed);
}

#[test]
fn weights_train_like_without_compilation() {
    let recipe = TrainerOptions {
        optimizer: Optimizer {
            weight_decay: 0.1,
            bias_correction: true,
            ..Optimizer::new(OptimizerKind::AdamW)
        },
        clip_norm: Some(0.5),
        z_loss: 1e-2,
        label_smoothing: 0.1,
        ema_decay: Some(0.9),
        ..options(OptimizerKind::AdamW)
    };
    for device in [Device::Gpu, Device::Cpu] {
        let _device = device.select();
        if !compiles() {
            return;
        }
        check(&format!("{device}, all weights"), &None, &recipe);
    }
    let _gpu = Device::Gpu.select();
    let full = Adapter::full(&model(), &TargetModules::all_layers()).unwrap();
    let factored = options(OptimizerKind::Adafactor);
    check("weights of the layers", &Some(full), &factored);
}

#[test]
fn the_number_of_functions_is_bounded() {
    let _gpu = Device::Gpu.select();
    if !compiles() {
        return;
    }
    let adapter = lora(&LoraOptions::default()).unwrap();
    let options = TrainerOptions {
        optimizer: Optimizer::new(OptimizerKind::Sgd),
        ..TrainerOptions::default()
    };
    let mut trainer = Trainer::new(&model(), adapter, options).unwrap();
    for length in 2..=40 {
        trainer.step(&batch(1, length, &[])).unwrap();
    }
    assert_eq!(trainer.compiled_functions(), 32);
    for (gone, length) in [(0, 40), (1, 39)] {
        trainer.step(&batch(1, length, &[])).unwrap();
        assert_eq!(trainer.compiled_functions(), 32, "{gone}");
    }
}
