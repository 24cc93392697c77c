//! Training and evaluation with numbers that are not finite.

use mlx_rs::Array;
use openelm_core::{
    Dtype, Error, LanguageModel, LoadOptions,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    convert::{Conversion, ConvertOptions},
    train::{Optimizer, OptimizerKind, Schedule, Trainer, TrainerOptions},
};
use openelm_testing::{TempDir, write_tales};

use crate::{
    gradients::batch,
    tiny::{changed, lora, model},
};

fn tales_with(tensor: &str, index: usize, value: f32, dtype: Dtype) -> LanguageModel {
    let folder = TempDir::new();
    write_tales(&folder, &[(tensor, index, value)]);
    let options = LoadOptions {
        dtype: Some(dtype),
        ..LoadOptions::default()
    };
    LanguageModel::load(&folder, &options).unwrap()
}

fn small(model: &LanguageModel) -> Adapter {
    let targets = TargetModules::default();
    Adapter::lora(model.model(), &targets, &LoraOptions::default(), 1).unwrap()
}

fn trainer(model: &LanguageModel, adapter: Adapter) -> Trainer {
    Trainer::new(model.model(), adapter, TrainerOptions::default()).unwrap()
}

#[test]
fn the_base_model_is_the_cause_of_its_own_numbers() {
    let tensor = "transformer.layers.2.ffn.proj_2.weight";
    let model = tales_with(tensor, 7, f32::NAN, Dtype::Float32);
    let expected = format!("layer 2 computes NaN or infinity: tensor `{tensor}` holds NaN");
    let mut trainer = trainer(&model, small(&model));
    for error in [
        trainer.evaluate([&batch()]).unwrap_err(),
        trainer.log_probabilities(&batch()).unwrap_err(),
        trainer.step(&batch()).unwrap_err(),
        trainer.update(&[batch()], None).unwrap_err(),
        trainer.update(&[batch(), batch()], None).unwrap_err(),
    ] {
        assert_eq!(error.to_string(), expected);
    }
}

#[test]
fn fusing_names_the_tensor_of_the_adapter() {
    let folder = TempDir::new();
    write_tales(&folder, &[]);
    let model = LanguageModel::load(&folder, &LoadOptions::default()).unwrap();
    let saved = TempDir::new();
    small(&model).save(&saved, model.model().config()).unwrap();
    let path = saved.join("adapters.safetensors");
    let tensors = Array::load_safetensors(&path).unwrap();
    let name = "transformer.layers.5.ffn.proj_2.lora_b";
    for (value, shown) in [(f32::NAN, "NaN"), (f32::NEG_INFINITY, "infinity")] {
        let changed = tensors.iter().map(|(tensor, array)| {
            let added = if tensor == name { value } else { 0.0 };
            (tensor.as_str(), array.add(Array::from_f32(added)).unwrap())
        });
        let changed: Vec<(&str, Array)> = changed.collect();
        for (_, array) in &changed {
            array.eval().unwrap();
        }
        let changed = changed.iter().map(|(name, array)| (*name, array));
        Array::save_safetensors(changed, None, &path).unwrap();
        let options = ConvertOptions {
            adapter: Some(Adapter::load(&saved).unwrap()),
            ..ConvertOptions::default()
        };
        let error = Conversion::open(&folder, &options).unwrap_err().to_string();
        assert!(error.contains(saved.as_str()), "{error}");
        let expected = format!(": tensor `{name}` holds {shown}");
        assert!(error.ends_with(&expected), "{error}");
    }
}

/// The first validation of a run is before its first step.
#[test]
fn before_the_first_step_the_layer_is_named() {
    let tensor = "transformer.layers.1.ffn_norm.weight";
    let model = tales_with(tensor, 0, 3e38, Dtype::Float32);
    let full = Adapter::full(model.model(), &TargetModules::all_layers()).unwrap();
    let trainer = trainer(&model, full);
    let message = trainer.evaluate([&batch()]).unwrap_err().to_string();
    let expected = "layer 1 computes NaN or infinity: its weights are finite";
    assert!(message.starts_with(expected), "{message}");
}

#[test]
fn float16_is_the_cause_of_its_overflow() {
    let model = tales_with(
        "transformer.layers.1.attn_norm.weight",
        0,
        6e5,
        Dtype::Float16,
    );
    let error = trainer(&model, small(&model)).step(&batch()).unwrap_err();
    assert!(matches!(error, Error::Dtype { .. }), "{error}");
    assert!(
        error.to_string().contains("use bfloat16 or float32"),
        "{error}"
    );
}

#[test]
fn refuses_parameters_that_are_not_finite() {
    let adapter = changed(
        &lora(Keys::AllProjections, LoraOptions::default()),
        |name, array| {
            let broken = name == "transformer.layers.1.ffn.proj_1.lora_a";
            let factor = if broken { f32::INFINITY } else { 1.0 };
            array.multiply(Array::from_f32(factor)).unwrap()
        },
    );
    let error = Trainer::new(&model(), adapter, TrainerOptions::default()).unwrap_err();
    let message = error.to_string();
    let end = ": tensor `transformer.layers.1.ffn.proj_1.lora_a` holds NaN or infinity";
    assert!(message.ends_with(end), "{message}");
    let tensor = "transformer.layers.0.attn.out_proj.weight";
    let broken = tales_with(tensor, 3, f32::NAN, Dtype::Float32);
    let full = Adapter::full(broken.model(), &TargetModules::all_layers()).unwrap();
    let error = Trainer::new(broken.model(), full, TrainerOptions::default()).unwrap_err();
    assert!(matches!(error, Error::NonFinite { .. }), "{error}");
    assert!(error.to_string().contains(tensor), "{error}");
}

/// The loss of a step is the loss before its update: the last update can fail unseen.
#[test]
fn a_diverged_state_is_not_saved() {
    let options = TrainerOptions {
        optimizer: Optimizer::new(OptimizerKind::Sgd),
        schedule: Schedule {
            learning_rate: 1e38,
            ..Schedule::default()
        },
        ..TrainerOptions::default()
    };
    let adapter = lora(Keys::AllProjections, LoraOptions::default());
    let mut trainer = Trainer::new(&model(), adapter, options).unwrap();
    let folder = TempDir::new();
    let path = folder.join("state.safetensors");
    // The first update changes only B, which was zero, the second overflows.
    let mut steps = (0..3).map_while(|_| trainer.step(&batch()).ok());
    assert!(steps.next().is_some());
    let _ = steps.count();
    let error = trainer
        .save_state(&path, &serde_json::Value::Null)
        .unwrap_err();
    assert!(matches!(error, Error::Diverged { .. }), "{error}");
    assert!(!path.exists());
}

/// A row of zeros has no direction: DoRA leaves it as it is.
#[test]
fn dora_keeps_rows_of_zeros() {
    let folder = TempDir::new();
    let name = "transformer.layers.0.ffn.proj_2.weight";
    let zeros: Vec<_> = (0..128).map(|i| (name, i, 0.0)).collect();
    write_tales(&folder, &zeros);
    let model = LanguageModel::load(&folder, &LoadOptions::default()).unwrap();
    let options = LoraOptions {
        dora: true,
        ..LoraOptions::default()
    };
    let targets = TargetModules::all_layers();
    let adapter = Adapter::lora(model.model(), &targets, &options, 1).unwrap();
    let mut trainer = trainer(&model, adapter);
    for _ in 0..2 {
        trainer.step(&batch()).unwrap();
    }
    assert!(trainer.evaluate([&batch()]).unwrap().is_finite());
}
