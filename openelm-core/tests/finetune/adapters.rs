//! Adapters on a loaded model.

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Error, Model,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Preset},
    internal::random_weights,
    train::{Trainer, TrainerOptions},
};

use crate::tiny::{changed, lora, model, stirred};

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
        // CoreNet's embedding has 128 more rows, which belong to no token.
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
    // On a CPU a matrix without adapters has a primitive of its own, which rounds otherwise.
    assert!(apart(&logits(&model), &base) < 1e-5);
    // Half the strength equals half the scale.
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
    let message = other.add_adapter("x", &adapter).unwrap_err().to_string();
    assert!(
        message.contains("[3, 32]") && message.contains("[3, 64]"),
        "{message}"
    );
    let message = Trainer::new(&other, adapter, TrainerOptions::default())
        .unwrap_err()
        .to_string();
    assert!(message.contains("[3, 32]"), "{message}");
}
