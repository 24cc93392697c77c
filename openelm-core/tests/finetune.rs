//! Fine-tuning on tiny models: what is trained, its gradients, and adapters on a loaded model.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

use mlx_rs::{Array, random};
use openelm_core::{
    Config, Dtype, Error, Model,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    dataset::Example,
    finetune::{Finetune, FinetuneEnd, FinetuneEvent, FinetuneOptions, TrainingData},
    internal::{Batch, random_weights},
    train::{
        Optimizer, OptimizerKind, Preference, PreferenceLoss, Schedule, Trainer, TrainerOptions,
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

/// Two rows of different lengths, padded, some of the first one's tokens no targets.
fn batch() -> Batch {
    let rows = [
        Example {
            tokens: vec![1, 7, 9, 4, 30, 2],
            first_target: 3,
        },
        Example {
            tokens: vec![1, 12, 44, 2],
            first_target: 1,
        },
    ];
    Batch::new(
        &rows.iter().collect::<Vec<_>>(),
        openelm_core::internal::Padding::default(),
    )
}

/// An adapter whose every tensor is moved away from where it begins, so that nothing is zero.
fn stirred(adapter: &Adapter, seed: u64) -> Adapter {
    changed(adapter, |name, array| {
        let seed = seed + name.len() as u64;
        let key = random::key(seed).unwrap();
        let noise = random::normal::<f32>(array.shape(), None, Some(0.1), &key).unwrap();
        array.add(noise).unwrap()
    })
}

/// The adapter with its tensors, by mlx-lm's names, passed through `change`.
fn changed(adapter: &Adapter, mut change: impl FnMut(&str, &Array) -> Array) -> Adapter {
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

fn tensors(adapter: &Adapter) -> std::collections::HashMap<String, Array> {
    let folder = TempDir::new();
    adapter.save(&folder, &config()).unwrap();
    let tensors = Array::load_safetensors(folder.join("adapters.safetensors")).unwrap();
    for array in tensors.values() {
        array.eval().unwrap();
    }
    tensors
}

/// Gradient descent with a rate of 1, so that a step changes a parameter by its gradient.
fn descent(grad_checkpoint: bool) -> TrainerOptions {
    TrainerOptions {
        optimizer: Optimizer::new(OptimizerKind::Sgd),
        schedule: Schedule {
            learning_rate: 1.0,
            ..Schedule::default()
        },
        grad_checkpoint,
        ..TrainerOptions::default()
    }
}

fn lora(keys: Keys, options: LoraOptions) -> Adapter {
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

/// Compares the gradient that a step applied with differences of the loss, at a few places of
/// every tensor.
fn check_gradients(what: &str, adapter: &Adapter, preference: Option<&Preference>) {
    let model = model();
    let batch = batch();
    let loss = |adapter: &Adapter| -> f64 {
        let mut trainer = Trainer::new(&model, adapter.clone(), descent(false)).unwrap();
        match preference {
            None => trainer.evaluate([&batch]).unwrap(),
            Some(preference) => {
                f64::from(trainer.step_preference(&batch, preference).unwrap().loss)
            }
        }
    };
    let before = tensors(adapter);
    let mut steps = [false, true].map(|checkpoint| {
        let mut trainer = Trainer::new(&model, adapter.clone(), descent(checkpoint)).unwrap();
        match preference {
            None => trainer.step(&batch).unwrap(),
            Some(preference) => trainer.step_preference(&batch, preference).unwrap(),
        };
        tensors(&trainer.adapter())
    });
    let [after, checkpointed] = &mut steps;
    for (name, start) in &before {
        let gradient = start.subtract(&after[name]).unwrap();
        let other = start.subtract(&checkpointed[name]).unwrap();
        let length = |x: &Array| {
            x.square()
                .unwrap()
                .sum(false)
                .unwrap()
                .item_exact::<f32>()
                .sqrt()
        };
        let apart = length(&gradient.subtract(&other).unwrap()) / length(&gradient).max(1e-6);
        assert!(
            apart < 1e-4,
            "{what}: {name}: checkpointing changes it by {apart:e}"
        );
        // Along the gradient itself the loss grows by its squared length.
        let squared = f64::from(length(&gradient)).powi(2);
        assert!(squared > 1e-12, "{what}: {name} has no gradient");
        let h = (2e-3 / squared.sqrt()) as f32;
        let moved = |by: f32| {
            let moved = changed(adapter, |tensor, array| {
                if tensor == name {
                    array
                        .add(gradient.multiply(Array::from_f32(by)).unwrap())
                        .unwrap()
                } else {
                    array.clone()
                }
            });
            loss(&if name.ends_with(".m") {
                moved
            } else {
                with_lengths_held(adapter, &moved)
            })
        };
        let slope = (moved(h) - moved(-h)) / (2.0 * f64::from(h));
        let off = (slope - squared).abs() / squared;
        // In f32 a loss of about 4 is known to 5e-7; the step moves it by 2e-3 of the length.
        let allowed = 0.02 + 5e-7 / (2e-3 * squared.sqrt());
        assert!(
            off < allowed,
            "{what}: {name}: {slope:e}, not {squared:e}: off by {off}"
        );
    }
}

/// `moved` with DoRA's magnitudes grown as the rows of `W + ΔW` have: training takes the rows'
/// lengths for constants, by design, and so must the differences.
fn with_lengths_held(adapter: &Adapter, moved: &Adapter) -> Adapter {
    let (old, new) = (tensors(adapter), tensors(moved));
    if !old.keys().any(|name| name.ends_with(".m")) {
        return moved.clone();
    }
    let weights = tensors(&Adapter::full(&model(), &TargetModules::default()).unwrap());
    changed(moved, |name, array| {
        let Some(stem) = name.strip_suffix(".m") else {
            return array.clone();
        };
        let lengths = |tensors: &std::collections::HashMap<String, Array>| {
            let (a, b) = (
                &tensors[&format!("{stem}.lora_a")],
                &tensors[&format!("{stem}.lora_b")],
            );
            let delta = mlx_rs::ops::matmul(b.t(), a.t()).unwrap();
            let delta = delta.multiply(Array::from_f32(2.0)).unwrap();
            let sum = weights[&format!("{stem}.weight")].add(delta).unwrap();
            sum.square()
                .unwrap()
                .sum_axis(-1, false)
                .unwrap()
                .sqrt()
                .unwrap()
        };
        array
            .multiply(lengths(&new).divide(lengths(&old)).unwrap())
            .unwrap()
    })
}

#[test]
fn gradients_match_finite_differences() {
    let linears = || lora(Keys::AllProjections, LoraOptions::default());
    check_gradients("lora", &stirred(&linears(), 1), None);
    let dora = LoraOptions {
        dora: true,
        ..LoraOptions::default()
    };
    check_gradients("dora", &stirred(&lora(Keys::AllProjections, dora), 2), None);
    for tied_head in [false, true] {
        let options = LoraOptions {
            tied_head,
            ..LoraOptions::default()
        };
        let what = format!("corenet's targets, tied head {tied_head}");
        check_gradients(&what, &stirred(&lora(Keys::corenet(), options), 3), None);
    }
    let full = Adapter::full(&model(), &TargetModules::default()).unwrap();
    check_gradients("full", &full, None);
    for loss in [PreferenceLoss::Sigmoid, PreferenceLoss::Hinge] {
        let preference = Preference {
            loss,
            beta: 0.3,
            reference: vec![-12.0, -11.0],
        };
        check_gradients("preferences", &stirred(&linears(), 4), Some(&preference));
    }
}

#[test]
fn trainable_counts_match_corenet() {
    let counts = [
        (Preset::Size270M, 9_453_568, 158_336),
        (Preset::Size450M, 13_508_608, 234_624),
        (Preset::Size1_1B, 24_281_088, 437_632),
        (Preset::Size3B, 45_887_488, 844_800),
    ];
    for (preset, lora, magnitudes) in counts {
        let config = preset.config();
        let targets = TargetModules {
            num_layers: None,
            keys: Keys::corenet(),
        };
        let matrices = targets.matrices(&config).unwrap();
        let count: usize = matrices
            .iter()
            .map(|(_, [out, input])| 32 * (out + input))
            .sum();
        // CoreNet's embedding has 128 rows more, which belong to no token.
        assert_eq!(count + 32 * 128, lora, "{preset:?}");
        let linears = TargetModules::all_layers().matrices(&config).unwrap();
        let count: usize = linears.iter().map(|(_, [out, _])| out).sum();
        assert_eq!(count, magnitudes, "{preset:?}");
    }
}

fn logits(model: &Model) -> Vec<f32> {
    let tokens = Array::from_slice(&[1u32, 7, 9, 4], &[1, 4]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    model
        .logits(&hidden)
        .unwrap()
        .to_vec_exact::<f32>()
        .unwrap()
}

fn apart(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter()
        .zip(b)
        .map(|(a, b)| (a - b).abs())
        .fold(0.0, f32::max)
}

#[test]
fn adapters_are_added_switched_and_removed() {
    let mut model = model();
    let base = logits(&model);
    let one = stirred(&lora(Keys::AllProjections, LoraOptions::default()), 1);
    let dora = LoraOptions {
        dora: true,
        ..LoraOptions::default()
    };
    let two = stirred(&lora(Keys::Names(vec!["proj_2".into()]), dora), 2);
    model.add_adapter("one", &one).unwrap();
    let with_one = logits(&model);
    assert!(apart(&with_one, &base) > 1e-3);
    model.add_adapter("two", &two).unwrap();
    let with_two = logits(&model);
    assert_eq!(model.adapters(), ["one", "two"]);
    assert_eq!(model.active_adapters(), [("two".to_owned(), 1.0)]);
    assert!(apart(&with_two, &base) > 1e-3 && apart(&with_two, &with_one) > 1e-3);

    model.set_adapters(&[("one", 1.0)]).unwrap();
    assert_eq!(logits(&model), with_one);
    model.set_adapters(&[]).unwrap();
    assert_eq!(logits(&model), base);
    model.set_adapters(&[("one", 0.0)]).unwrap();
    assert!(apart(&logits(&model), &base) < 1e-6);
    // Half as strong is an adapter of half the scale.
    model.set_adapters(&[("one", 0.5)]).unwrap();
    let half = changed(&one, |name, array| {
        if name.ends_with("lora_b") {
            array.multiply(Array::from_f32(0.5)).unwrap()
        } else {
            array.clone()
        }
    });
    let found = logits(&model);
    model.add_adapter("half", &half).unwrap();
    assert!(apart(&found, &logits(&model)) < 1e-5);
    model.set_adapters(&[("one", 1.0), ("two", 1.0)]).unwrap();
    let both = logits(&model);
    assert!(apart(&both, &with_one) > 1e-3 && apart(&both, &with_two) > 1e-3);

    let full = changed(
        &Adapter::full(&model, &TargetModules::default()).unwrap(),
        |_, array| array.multiply(Array::from_f32(1.1)).unwrap(),
    );
    model.add_adapter("full", &full).unwrap();
    assert!(apart(&logits(&model), &base) > 1e-3);
    for name in ["full", "two", "half", "one"] {
        model.remove_adapter(name).unwrap();
    }
    assert_eq!(logits(&model), base);
    assert!(matches!(
        model.set_adapters(&[("one", 1.0)]),
        Err(Error::Option { .. })
    ));
}

#[test]
fn rejects_adapters_of_other_models() {
    let narrow = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 2,
        model_dim: 32,
        head_dim: 16,
        vocab_size: 50,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    let weights = random_weights(&narrow, Dtype::Float32, 3).unwrap();
    let mut other = Model::new(narrow, weights, Dtype::Float32).unwrap();
    let adapter = lora(Keys::AllProjections, LoraOptions::default());
    let told = other.add_adapter("x", &adapter).unwrap_err().to_string();
    assert!(
        told.contains("[3, 32]") && told.contains("[3, 64]"),
        "{told}"
    );
    let told = Trainer::new(&other, adapter, TrainerOptions::default())
        .unwrap_err()
        .to_string();
    assert!(told.contains("[3, 32]"), "{told}");
}

fn rows(count: u32) -> TrainingData {
    let row = |i: u32| Example {
        tokens: (0..4 + i % 5).map(|k| 1 + (i + 3 * k) % 40).collect(),
        first_target: 1,
    };
    TrainingData::Examples((0..count).map(row).collect())
}

fn finetune(folder: &TempDir, options: FinetuneOptions) -> openelm_core::Result<Finetune> {
    let adapter = lora(Keys::AllProjections, LoraOptions::default());
    Finetune::new(&model(), adapter, rows(10), Some(rows(4)), folder, options)
}

#[test]
fn patience_ends_the_run() {
    let folder = TempDir::new();
    let options = FinetuneOptions {
        trainer: TrainerOptions {
            schedule: Schedule {
                learning_rate: 0.0,
                ..Schedule::default()
            },
            ..TrainerOptions::default()
        },
        iters: 50,
        steps_per_eval: 2,
        patience: Some(3),
        ..FinetuneOptions::default()
    };
    let events: Vec<FinetuneEvent> = finetune(&folder, options)
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let Some(FinetuneEvent::Finished {
        iteration, reason, ..
    }) = events.last()
    else {
        panic!("{events:?}");
    };
    assert_eq!((*iteration, *reason), (6, FinetuneEnd::Patience));
}

#[test]
fn diverged_run_keeps_the_last_checkpoint() {
    let folder = TempDir::new();
    let options = FinetuneOptions {
        trainer: TrainerOptions {
            schedule: Schedule {
                warmup: 12,
                learning_rate: 1e32,
                ..Schedule::default()
            },
            optimizer: Optimizer::new(OptimizerKind::Sgd),
            ..TrainerOptions::default()
        },
        save_every: 1,
        iters: 50,
        ..FinetuneOptions::default()
    };
    let mut run = finetune(&folder, options).unwrap();
    let mut saved = 0;
    let error = loop {
        match run.next().expect("it diverges") {
            Ok(FinetuneEvent::Saved { iteration }) => saved = iteration,
            Ok(_) => {}
            Err(error) => break error,
        }
    };
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(run.next().is_none());
    assert!(saved >= 1);
    Adapter::load(&folder).unwrap();
}
