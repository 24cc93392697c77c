//! Compares fine-tuning with mlx-lm's trainer on the same model, rows and initial adapter.
//! `parity/finetune.py` writes the results to the folder `OPENELM_FINETUNE`; `make parity` runs
//! everything.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

mod case;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use mlx_rs::Array;
use openelm_core::{
    Device, Model,
    adapter::Adapter,
    internal::Batch,
    runtime,
    train::{Optimizer, OptimizerKind, Schedule, Trainer, TrainerOptions},
};
use openelm_testing::TempDir;

use case::{Case, Losses, batch, model, options, preference, read, rows, rows_of, start};

/// Largest relative difference of a step's loss.
const LOSS_BOUND: f64 = 1e-4;

/// Largest distance of a trained tensor after the last step, relative to its norm. (Single elements
/// differ more: Adam turns a gradient of nearly zero into a full step of either sign. In
/// `dora-keys-exact`, on the code of a GPU, one such element is most of the distance.)
const TENSOR_BOUND: f32 = 1e-3;

/// Largest distance of the gradient of a tensor for the first batch, relative to its norm.
const GRADIENT_BOUND: f32 = 2e-5;

/// Largest difference of a logit of the adapted model.
const LOGIT_BOUND: f32 = 2e-4;

/// Largest logit difference between the adapter trained here and the one trained by mlx-lm: with a
/// scale of 10, one such step moves a logit by about 4e-3.
const TRAINED_LOGIT_BOUND: f32 = 1e-2;

/// Cases that are also trained with checkpointing, one of each kind; FULL=1 does all.
const CHECKPOINTED: [&str; 6] = [
    "lora-accumulate-exact",
    "lora-prompts-exact",
    "dora-keys-exact",
    "full-exact",
    "qlora-exact",
    "dpo_sigmoid",
];

#[test]
#[ignore = "needs files from Python: make parity"]
fn fine_tuning_matches_mlx_lm() {
    let folder = PathBuf::from(std::env::var_os("OPENELM_FINETUNE").expect("set by parity/run.sh"));
    let index: BTreeMap<String, Vec<String>> = read(&folder.join("index.json"));
    let full = std::env::var_os("FULL").is_some_and(|value| value == "1");
    let mut compared = 0;
    for name in index["cases"].iter().chain(&index["dpo"]) {
        // The code of a GPU, with compiled steps, on the same backend.
        compare(&folder, name, Device::Gpu, false);
        compare(&folder, name, Device::Cpu, false);
        if full || CHECKPOINTED.contains(&name.as_str()) {
            compare(&folder, name, Device::Gpu, true);
            compare(&folder, name, Device::Cpu, true);
        }
        compared += 1;
    }
    assert!(
        compared >= if full { 36 } else { 22 },
        "only {compared} cases"
    );
}

fn compare(folder: &Path, name: &str, device: Device, checkpoint: bool) {
    let _device = device.select();
    let output = folder.join(name);
    let case: Case = read(&output.join("case.json"));
    let expected: Losses = read(&output.join("losses.json"));
    let model = model(&folder.join(&case.base));
    let gradients = compare_gradients(folder, name, &case, &expected, &model, checkpoint);
    let mut trainer = Trainer::new(&model, start(&output), options(&case, checkpoint)).unwrap();
    assert_eq!(
        trainer.parameter_count(),
        case.trainable_parameters,
        "{name}"
    );
    let worst = compare_losses(folder, name, &case, &expected, &mut trainer);
    let compiled = device == Device::Gpu && runtime::compiles();
    assert_eq!(trainer.compiled_functions() > 0, compiled, "{name}");
    // Read by mlx-lm in parity/load_adapters.py.
    let written = output.join("ours");
    trainer.adapter().save(&written, model.config()).unwrap();
    let furthest = compare_tensors(name, &case, &expected, &output);
    let logits = if case.logit_tokens.is_empty() {
        0.0
    } else {
        compare_logits(name, &case, &model, &output)
    };
    let mode = if checkpoint { "checkpointed" } else { "" };
    eprintln!(
        "{name:24} {device} {mode:12} loss {worst:.1e}  gradients {gradients:.1e}  \
         tensors {furthest:.1e}  logits {logits:.1e}"
    );
}

/// Returns the largest distance of the gradient of a tensor for the first batch; 0 for preferences.
fn compare_gradients(
    folder: &Path,
    name: &str,
    case: &Case,
    expected: &Losses,
    model: &Model,
    checkpoint: bool,
) -> f32 {
    if case.loss.is_some() {
        return 0.0;
    }
    // Descent with this learning rate moves a tensor by so many times its gradient: the
    // rounding of the moved tensor is smaller than the gradient's.
    let times = 64.0_f32;
    let options = TrainerOptions {
        optimizer: Optimizer::new(OptimizerKind::Sgd),
        schedule: Schedule {
            learning_rate: times.into(),
            ..Schedule::default()
        },
        grad_checkpoint: checkpoint,
        ..TrainerOptions::default()
    };
    let output = folder.join(name);
    let mut trainer = Trainer::new(model, start(&output), options).unwrap();
    let rows = rows(folder, case, "train");
    trainer
        .step(&batch(&rows, &expected.rows[0], case))
        .unwrap();
    let moved = TempDir::new();
    trainer.adapter().save(&moved, model.config()).unwrap();
    let load = |path: PathBuf| Array::load_safetensors(path).unwrap();
    let moved = load(moved.join("adapters.safetensors"));
    let first = load(output.join("init.safetensors"));
    let mut furthest = 0.0_f32;
    for (tensor, gradient) in load(output.join("gradient.safetensors")) {
        let found = first[&tensor].subtract(&moved[&tensor]).unwrap();
        let found = found.divide(Array::from_f32(times)).unwrap();
        let off = length(&found.subtract(&gradient).unwrap()) / length(&gradient).max(1e-6);
        assert!(
            off <= GRADIENT_BOUND,
            "{name}: the gradient of {tensor} is off by {off:e}"
        );
        furthest = furthest.max(off);
    }
    furthest
}

/// Trains, and returns the largest relative loss difference.
fn compare_losses(
    folder: &Path,
    name: &str,
    case: &Case,
    expected: &Losses,
    trainer: &mut Trainer,
) -> f64 {
    let mut worst = 0.0_f64;
    let preferences = case.loss.is_some();
    let rows = if preferences {
        Vec::new()
    } else {
        rows(folder, case, "train")
    };
    for (i, (loss, chosen)) in expected.train.iter().zip(&expected.rows).enumerate() {
        let step = if preferences {
            let (batch, preference) = preference(folder, case, expected, chosen);
            trainer.step_preference(&batch, &preference).unwrap()
        } else {
            let batch = batch(&rows, chosen, case);
            let step = trainer.step(&batch).unwrap();
            assert_eq!(
                step.targets, expected.tokens[i],
                "{name}: targets of step {i}"
            );
            step
        };
        if case.optimizer != "adafactor" {
            let rate = expected.learning_rate[i];
            // With accumulation mlx-lm reports the rate of the last update, not of the next one.
            if case.grad_accumulation_steps == 1 {
                assert!(
                    (step.learning_rate - rate).abs() <= 1e-6 * rate,
                    "{name}: rate of {i}"
                );
            }
        }
        worst = worst.max((f64::from(step.loss) - loss).abs() / loss.abs().max(1e-6));
    }
    assert!(worst <= LOSS_BOUND, "{name}: losses differ by {worst:e}");
    if let Some(after) = &expected.valid_after {
        let rows = rows_of(folder, case);
        let batches: Vec<Batch> = after.rows.iter().map(|c| batch(&rows, c, case)).collect();
        let found = trainer.evaluate(&batches).unwrap();
        let off = (found - after.loss).abs() / after.loss;
        assert!(
            off <= LOSS_BOUND,
            "{name}: validation after: {found}, not {}",
            after.loss
        );
        assert!(!expected.valid.is_empty(), "{name}");
    }
    worst
}

/// Compares the adapter trained here with mlx-lm's. Returns the largest distance.
fn compare_tensors(name: &str, case: &Case, expected: &Losses, output: &Path) -> f32 {
    let found = Array::load_safetensors(output.join("ours/adapters.safetensors")).unwrap();
    let reference = Array::load_safetensors(output.join("final.safetensors")).unwrap();
    assert_eq!(found.len(), reference.len(), "{name}");
    let mut furthest = 0.0_f32;
    for (tensor, reference) in &reference {
        let off = if case.optimizer == "lion" {
            signed_distance(name, &found[tensor], reference, &expected.learning_rate)
        } else {
            length(&found[tensor].subtract(reference).unwrap()) / length(reference).max(1e-6)
        };
        assert!(off <= TENSOR_BOUND, "{name}: {tensor} is off by {off:e}");
        furthest = furthest.max(off);
    }
    furthest
}

/// Compares the logits of both adapters with mlx-lm's. Returns the largest difference, and writes
/// the logits for parity/load_adapters.py.
fn compare_logits(name: &str, case: &Case, model: &Model, output: &Path) -> f32 {
    let written = output.join("ours");
    let mut logits = 0.0_f32;
    let of = |source: &Path| {
        let mut adapted = model.clone();
        adapted
            .add_adapter("trained", &Adapter::load(source).unwrap())
            .unwrap();
        logits_of(&adapted, &case.logit_tokens)
    };
    let reference = &Array::load_safetensors(output.join("logits.safetensors")).unwrap()["logits"];
    let ours = of(&written);
    for (logits_found, bound) in [(&of(output), LOGIT_BOUND), (&ours, TRAINED_LOGIT_BOUND)] {
        let off = distance(logits_found, reference);
        assert!(off <= bound, "{name}: logits differ by {off:e}");
        logits = logits.max(off);
    }
    Array::save_safetensors(
        [("logits", &ours)],
        None,
        written.join("logits.safetensors"),
    )
    .unwrap();
    logits
}

/// Relative distance of tensors trained by Lion, without a few elements.
///
/// Lion moves every element by the learning rate, in the direction of the momentum's sign. If the
/// momentum is almost zero, rounding decides the sign, and correct elements differ by two rates. At
/// most one element in a hundred (at least one per tensor) may differ, and none by more than twice
/// the sum of the rates.
fn signed_distance(name: &str, found: &Array, reference: &Array, rates: &[f32]) -> f32 {
    let rate = rates.iter().copied().fold(0.0_f32, f32::max);
    let furthest = 2.0 * rates.iter().sum::<f32>() + 1e-6;
    let (found, reference) = (
        found.flatten(None, None).unwrap(),
        reference.flatten(None, None).unwrap(),
    );
    let (found, reference) = (found.as_slice::<f32>(), reference.as_slice::<f32>());
    assert_eq!(found.len(), reference.len(), "{name}");
    let (mut turned, mut square, mut whole) = (0_usize, 0.0_f32, 0.0_f32);
    for (a, b) in found.iter().zip(reference) {
        let off = (a - b).abs();
        assert!(
            off <= furthest,
            "{name}: an entry is off by {off:e}, the rates by {furthest:e}"
        );
        whole += b * b;
        if off > rate / 2.0 {
            turned += 1;
        } else {
            square += off * off;
        }
    }
    let most = (found.len() / 100).max(1);
    assert!(
        turned <= most,
        "{name}: {turned} of {} entries turned",
        found.len()
    );
    square.sqrt() / whole.sqrt().max(1e-6)
}

fn logits_of(model: &Model, tokens: &[u32]) -> Array {
    let tokens = Array::from_slice(tokens, &[1, tokens.len() as i32]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    model.logits(&hidden).unwrap().squeeze_axes(&[0]).unwrap()
}

fn distance(a: &Array, b: &Array) -> f32 {
    assert_eq!(a.shape(), b.shape());
    largest(&a.subtract(b).unwrap())
}

fn length(a: &Array) -> f32 {
    a.square()
        .unwrap()
        .sum(false)
        .unwrap()
        .item_exact::<f32>()
        .sqrt()
}

fn largest(a: &Array) -> f32 {
    a.abs().unwrap().max(false).unwrap().item_exact::<f32>()
}
