//! Gradients compared with finite differences of the loss.

use mlx_rs::Array;
use openelm_core::{
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    dataset::Example,
    internal::Batch,
    train::{
        Optimizer, OptimizerKind, Preference, PreferenceLoss, Schedule, Trainer, TrainerOptions,
    },
};

use crate::tiny::{changed, lora, model, stirred, tensors};

/// Two padded rows of different lengths; some tokens of the first row are not targets.
pub(crate) fn batch() -> Batch {
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

/// Gradient descent with a learning rate of 1, so that a step changes a parameter by its gradient.
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

/// Compares the gradient that a step applied with finite differences of the loss, in a few
/// directions per tensor.
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
        // Along the gradient the loss grows by the gradient's squared length.
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
        // A loss of about 4 in f32 has a resolution of 5e-7; the step changes it by 2e-3 of the
        // length.
        let allowed = 0.02 + 5e-7 / (2e-3 * squared.sqrt());
        assert!(
            off < allowed,
            "{what}: {name}: {slope:e}, not {squared:e}: off by {off}"
        );
    }
}

/// `moved`, with DoRA's magnitudes scaled like the row norms of `W + ΔW`: training treats the row
/// norms as constants, so the differences must, too.
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
