//! Training on a base whose matrices stay quantised, in every packing.

use mlx_rs::Array;
use openelm_core::{
    CancelHandle, Config, Dtype, Error, Model,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    config::{LayerWiseConfig, Multipliers, Preset},
    convert::{ConvertOptions, Quantize, TokenizerChoice, convert},
    internal::{ReadOptions, Weights},
    quantization::{Quantization, QuantizationMode},
    train::{Optimizer, OptimizerKind, Schedule, Trainer, TrainerOptions},
    weights::Checkpoint,
};
use openelm_testing::{TempDir, write_weights};

use crate::gradients::batch;

fn all_packings() -> Vec<Quantization> {
    use QuantizationMode::{Affine, Mxfp4, Mxfp8, Nvfp4};
    let affine = [2, 3, 4, 5, 6, 8]
        .into_iter()
        .flat_map(|bits| [32, 64, 128].map(|group| (Affine, Some(bits), Some(group))));
    let others = [Mxfp4, Mxfp8, Nvfp4].map(|mode| (mode, None, None));
    affine
        .chain(others)
        .map(|(mode, bits, group)| Quantization::new(mode, bits, group).unwrap())
        .collect()
}

/// A model whose rows all divisors fit, in `source`.
fn write_source(folder: &TempDir) -> Config {
    let config = Config::layer_wise(LayerWiseConfig {
        num_transformer_layers: 1,
        model_dim: 128,
        head_dim: 32,
        ffn_multipliers: Multipliers::Range(1.0, 1.0),
        ffn_dim_divisor: 128,
        vocab_size: 50,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    // Float16 numbers of ±0.03 to ±0.06, in an order without a short period.
    let mut state = 1_u32;
    let pattern: Vec<u8> = (0..997)
        .flat_map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let sign = (state >> 31) << 15;
            ((0x2800 | (state >> 16) & 0x3ff | sign) as u16).to_le_bytes()
        })
        .collect();
    std::fs::create_dir(folder.join("source")).unwrap();
    write_weights(
        &folder.join("source"),
        &config.to_json(),
        &config.tensors(),
        &pattern,
    );
    config
}

fn load(folder: &TempDir, config: &Config, dtype: Dtype, keep_quantized: bool) -> Model {
    let config_of = Config::load(folder.join("packed")).unwrap();
    assert_eq!(config_of.tensors(), config.tensors());
    let checkpoint = Checkpoint::open(folder.join("packed")).unwrap();
    let options = ReadOptions {
        dtype,
        keep_quantized,
    };
    let weights = Weights::read(&checkpoint, &config_of, options, &mut |_, _| {}).unwrap();
    Model::new(config_of, weights, dtype).unwrap()
}

/// Losses of two steps, and the largest logit of the model with the trained adapter.
fn results(model: &Model, dora: bool, grad_checkpoint: bool) -> [f32; 3] {
    let targets = TargetModules {
        num_layers: None,
        keys: Keys::AllProjections,
    };
    let options = LoraOptions {
        rank: 2,
        dora,
        ..LoraOptions::default()
    };
    let adapter = Adapter::lora(model, &targets, &options, 5).unwrap();
    let options = TrainerOptions {
        optimizer: Optimizer::new(OptimizerKind::Sgd),
        schedule: Schedule {
            learning_rate: 0.01,
            ..Schedule::default()
        },
        grad_checkpoint,
        ..TrainerOptions::default()
    };
    let mut trainer = Trainer::new(model, adapter, options).unwrap();
    let [first, second] = [(); 2].map(|()| trainer.step(&batch()).unwrap().loss);
    let mut adapted = model.clone();
    adapted.add_adapter("trained", &trainer.adapter()).unwrap();
    let tokens = Array::from_slice(&[1_u32, 7, 9, 4], &[1, 4]);
    let hidden = adapted.hidden(&tokens, &mut adapted.cache()).unwrap();
    let logits = adapted.logits(&hidden).unwrap();
    let logits = logits.as_dtype(mlx_rs::Dtype::Float32).unwrap();
    [first, second, logits.max(None).unwrap().item_exact::<f32>()]
}

#[test]
fn adapters_train_on_every_packing() {
    for quantization in all_packings() {
        let folder = TempDir::new();
        let config = write_source(&folder);
        let options = ConvertOptions {
            quantize: Some(Quantize::uniform(quantization)),
            tokenizer: TokenizerChoice::Without,
            verify: false,
            ..ConvertOptions::default()
        };
        let cancel = CancelHandle::default();
        convert(
            folder.join("source"),
            folder.join("packed"),
            &options,
            &cancel,
            |_| {},
        )
        .unwrap();
        let load = |dtype, keep| load(&folder, &config, dtype, keep);
        let (packed, dense) = (load(Dtype::Float32, true), load(Dtype::Float32, false));
        for dora in [true, false] {
            let kept = results(&packed, dora, false);
            let mut others = vec![results(&dense, dora, false)];
            if dora {
                others.push(results(&packed, dora, true));
            }
            for (kept, other) in others.iter().flat_map(|other| kept.iter().zip(other)) {
                let apart = (kept - other).abs();
                assert!(
                    apart < 2e-3 * kept.abs(),
                    "{quantization}, {dora}: {kept} {other}"
                );
            }
            // The packings without biases, and mlx-lm's default.
            let defaults = Quantization::new(quantization.mode(), None, None).unwrap();
            let halves = [Dtype::Bfloat16, Dtype::Float16].into_iter();
            for dtype in halves.filter(|_| quantization == defaults) {
                let half = results(&load(dtype, true), dora, false);
                let apart = (half[0] - kept[0]).abs();
                assert!(
                    apart < 0.05 * kept[0],
                    "{quantization}, {dtype}: {half:?} {kept:?}"
                );
            }
        }
        let error = Adapter::full(&packed, &TargetModules::default()).unwrap_err();
        assert!(matches!(error, Error::Option { .. }), "{error}");
        assert!(error.to_string().contains("is quantised"), "{error}");
    }
}
