//! Hugging Face PEFT's adapter files, compared with weights merged by PEFT. `parity/peft_files.py`
//! makes the files in `fixtures/peft`. Files written here stay in the build's temporary folder,
//! `peft/NAME`, where the script's `check` reads them with PEFT.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "tests may panic"
)]

use std::{
    collections::HashMap,
    fs,
    path::{Path, PathBuf},
};

use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Model,
    adapter::Adapter,
    dataset::Example,
    finetune::{Finetune, FinetuneOptions, TrainingData},
    internal::{ReadOptions, Weights},
    weights::Checkpoint,
};
use openelm_testing::TempDir;
use serde_json::{Value, json};

const NAMES: [&str; 5] = ["lora", "rslora", "dora", "embedding", "patterns"];
const WEIGHTS: &str = "adapter_model.safetensors";
const SETTINGS: &str = "adapter_config.json";

/// Largest distance of the logits, relative to their norm.
const BOUND: f32 = 1e-5;

#[test]
fn peft_adapters_match_merged_weights() {
    let plain = logits(&model(&fixtures("base")));
    for name in NAMES {
        let folder = fixtures(name);
        let reference = logits(&model(&merged(name)));
        let found = adapted(&Adapter::load(&folder).unwrap());
        let off = distance(&found, &reference);
        assert!(off <= BOUND, "{name}: logits are off by {off:e}");
        let effect = distance(&plain, &reference);
        assert!(effect > 0.01, "{name}: changes the logits by {effect:e}");
    }
}

#[test]
fn peft_files_round_trip() {
    for name in NAMES {
        let original = Adapter::load(fixtures(name)).unwrap();
        let written = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .join("peft")
            .join(name);
        original.save_peft(&written, "base").unwrap();

        let (theirs, ours) = (tensors(&fixtures(name)), tensors(&written));
        assert_eq!(theirs.len(), ours.len(), "{name}");
        for (key, tensor) in &theirs {
            let [theirs, ours] =
                [tensor, &ours[key]].map(|array| array.to_vec_exact::<f32>().unwrap());
            assert_eq!(theirs, ours, "{name}: {key}");
        }
        // The scales, too.
        let reloaded = Adapter::load(&written).unwrap();
        assert_eq!(
            adapted(&original).to_vec_exact::<f32>().unwrap(),
            adapted(&reloaded).to_vec_exact::<f32>().unwrap(),
            "{name}"
        );
    }
}

#[test]
fn rejects_unsupported_settings() {
    let cases = [
        ("peft_type", json!("IA3")),
        ("fan_in_fan_out", json!(true)),
        ("lora_bias", json!(true)),
        ("bias", json!("all")),
        ("modules_to_save", json!(["lm_head"])),
        ("use_qalora", json!(true)),
        ("layer_replication", json!([[0, 2]])),
        ("trainable_token_indices", json!([3])),
        ("alora_invocation_tokens", json!([3])),
        ("init_lora_weights", json!("pissa_niter_4")),
        ("init_lora_weights", json!("corda")),
        ("target_parameters", json!(["proj_1"])),
        ("enable_lora", json!([true, false])),
        ("use_unheard_of", json!(true)),
        ("r", json!(0)),
    ];
    for (key, value) in cases {
        let message = refused(&format!("setting-{key}"), "lora", |settings, _| {
            settings[key] = value;
        });
        assert!(message.contains(&format!("`{key}`")), "{key}: {message}");
    }
}

/// Keys of older and newer versions that change nothing.
#[test]
fn settings_of_every_version_are_read() {
    let plain = adapted(&Adapter::load(fixtures("lora")).unwrap());
    let folder = changed("versions", "lora", |settings, _| {
        for key in [
            "use_rslora",
            "use_dora",
            "rank_pattern",
            "alpha_pattern",
            "lora_dropout",
            "lora_bias",
            "corda_config",
            "eva_config",
            "target_parameters",
            "modules_to_save",
            "enable_lora",
            "layers_to_transform",
            "layers_pattern",
            "trainable_token_indices",
        ] {
            settings[key] = Value::Null;
        }
        settings["init_lora_weights"] = json!("eva");
        settings["use_qalora"] = json!(false);
        settings["qalora_group_size"] = json!(16);
        settings["layers_to_transform"] = json!([0, 1]);
        settings["merge_weights"] = json!(false);
    });
    let found = adapted(&Adapter::load(folder).unwrap());
    assert_eq!(distance(&found, &plain), 0.0);
    // The defaults of PEFT.
    let folder = changed("defaults", "lora", |settings, tensors| {
        let settings = settings.as_object_mut().unwrap();
        settings.remove("r");
        settings.remove("lora_alpha");
        for (name, tensor) in tensors.iter_mut() {
            let shape = tensor.shape().to_vec();
            *tensor = if name.contains("lora_A") {
                zeros(&[8, shape[1]])
            } else {
                zeros(&[shape[0], 8])
            };
        }
    });
    assert_eq!(
        Adapter::load(folder).unwrap().targets().len(),
        targets("lora")
    );
}

fn targets(name: &str) -> usize {
    Adapter::load(fixtures(name)).unwrap().targets().len()
}

#[test]
fn rejects_inconsistent_tensors() {
    const OUT: &str = "base_model.model.transformer.layers.0.attn.out_proj";
    let message = refused("no-b", "lora", |_, tensors| {
        tensors.remove(&format!("{OUT}.lora_B.weight")).unwrap();
    });
    assert!(
        message.contains("`transformer.layers.0.attn.out_proj` lacks `lora_A` or `lora_B`"),
        "{message}"
    );
    let message = refused("magnitude", "dora", |_, tensors| {
        tensors
            .remove(&format!("{OUT}.lora_magnitude_vector"))
            .unwrap();
    });
    assert!(message.contains("a magnitude requires"), "{message}");
    let message = refused("flat", "lora", |_, tensors| {
        tensors.insert(format!("{OUT}.lora_A.weight"), zeros(&[24]));
    });
    assert!(
        message.contains("expected 2 dimensions, found shape [24]"),
        "{message}"
    );
    let message = refused("unknown", "lora", |_, tensors| {
        tensors.insert(format!("{OUT}.bias"), zeros(&[16]));
    });
    assert!(
        message.contains("out_proj.bias` is not a LoRA tensor"),
        "{message}"
    );
    let message = refused("rank", "lora", |settings, _| settings["r"] = json!(5));
    assert!(message.contains("rank 5, its tensors have 3"), "{message}");
    let message = refused("pattern", "patterns", |settings, _| {
        settings["alpha_pattern"] = json!({"proj_(": 3});
    });
    assert!(message.contains("pattern `proj_(`"), "{message}");
    let message = refused("dora-embedding", "embedding", |settings, _| {
        settings["use_dora"] = json!(true);
    });
    assert!(message.contains("PEFT's DoRA of an embedding"), "{message}");
}

#[test]
fn rejects_adapter_of_other_shapes() {
    const OUT: &str = "base_model.model.transformer.layers.0.attn.out_proj";
    let folder = changed("shape", "lora", |_, tensors| {
        tensors.insert(format!("{OUT}.lora_B.weight"), zeros(&[20, 3]));
    });
    let adapter = Adapter::load(&folder).unwrap();
    let error = model(&fixtures("base"))
        .add_adapter("a", &adapter)
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.contains("`transformer.layers.0.attn.out_proj.lora_b`")
            && message.contains("[3, 16], found [3, 20]"),
        "{message}"
    );
}

/// A run saves in mlx-lm's format, which has one rank and one scale.
#[test]
fn training_refuses_adapters_that_it_could_not_save() {
    let rows = || {
        let row = Example {
            tokens: vec![1, 2, 3, 4],
            first_target: 1,
        };
        TrainingData::Examples(vec![row; 4])
    };
    let begin = |adapter: &Path, folder: &TempDir| {
        let (model, adapter) = (model(&fixtures("base")), Adapter::load(adapter).unwrap());
        let options = FinetuneOptions {
            iters: 1,
            ..FinetuneOptions::default()
        };
        Finetune::new(&model, adapter, rows(), None, folder, options)
    };
    let no_scale = changed("no-scale", "lora", |settings, _| {
        settings["alpha_pattern"] = json!({"transformer\\.layers\\.0.*": 0});
    });
    for (adapter, part) in [
        (
            fixtures("patterns"),
            "one rank for all matrices; `transformer",
        ),
        (no_scale, "one scale for all matrices; `transformer"),
    ] {
        let folder = TempDir::new();
        let error = begin(&adapter, &folder).unwrap_err().to_string();
        assert!(error.starts_with("adapter: mlx-lm's format has"), "{error}");
        assert!(error.contains(part), "{error}");
        assert!(folder.names().is_empty(), "{:?}", folder.names());
    }
    // Different scales are multiplied into the factors.
    let scales = changed("scales", "lora", |settings, _| {
        settings["alpha_pattern"] = json!({"transformer\\.layers\\.0.*": 3});
    });
    let folder = TempDir::new();
    begin(&scales, &folder).unwrap().for_each(|event| {
        event.unwrap();
    });
    Adapter::load(&*folder).unwrap();
}

fn fixtures(name: &str) -> PathBuf {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/peft");
    fixtures.join(name)
}

/// A folder in the build's temporary folder.
fn scratch(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("peft-scratch")
        .join(name);
    fs::create_dir_all(&folder).unwrap();
    folder
}

/// The base model with the matrices merged by PEFT.
fn merged(name: &str) -> PathBuf {
    let folder = scratch(&format!("merged-{name}"));
    let base = fixtures("base");
    fs::copy(base.join("config.json"), folder.join("config.json")).unwrap();
    let mut weights = Array::load_safetensors(base.join("model.safetensors")).unwrap();
    let changed = Array::load_safetensors(fixtures(name).join("merged.safetensors")).unwrap();
    for (key, tensor) in changed {
        weights.insert(key, tensor).expect("the base has it");
    }
    Array::save_safetensors(&weights, None, folder.join("model.safetensors")).unwrap();
    folder
}

/// A copy of the adapter `name`, modified by `change`.
fn changed(
    case: &str,
    name: &str,
    change: impl FnOnce(&mut Value, &mut HashMap<String, Array>),
) -> PathBuf {
    let folder = scratch(case);
    let text = fs::read_to_string(fixtures(name).join(SETTINGS)).unwrap();
    let mut settings: Value = serde_json::from_str(&text).unwrap();
    let mut tensors = tensors(&fixtures(name));
    change(&mut settings, &mut tensors);
    fs::write(folder.join(SETTINGS), settings.to_string()).unwrap();
    Array::save_safetensors(&tensors, None, folder.join(WEIGHTS)).unwrap();
    folder
}

fn refused(
    case: &str,
    name: &str,
    change: impl FnOnce(&mut Value, &mut HashMap<String, Array>),
) -> String {
    let folder = changed(case, name, change);
    Adapter::load(folder).unwrap_err().to_string()
}

fn tensors(folder: &Path) -> HashMap<String, Array> {
    Array::load_safetensors(folder.join(WEIGHTS)).unwrap()
}

fn zeros(shape: &[i32]) -> Array {
    let count: i32 = shape.iter().product();
    Array::from_slice(&vec![0.0_f32; count as usize], shape)
}

fn model(folder: &Path) -> Model {
    let config = Config::load(folder).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.check(&config).unwrap();
    let options = ReadOptions {
        dtype: Dtype::Float32,
        keep_quantized: true,
    };
    let weights = Weights::read(&checkpoint, &config, options, &mut |_, _| {}).unwrap();
    Model::new(config, weights, Dtype::Float32).unwrap()
}

fn adapted(adapter: &Adapter) -> Array {
    let mut model = model(&fixtures("base"));
    model.add_adapter("peft", adapter).unwrap();
    logits(&model)
}

fn logits(model: &Model) -> Array {
    let tokens = Array::from_slice(&[1_u32, 17, 5, 23, 0, 9, 9, 14], &[1, 8]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    model.logits(&hidden).unwrap()
}

/// Distance of `a` from `b`, relative to the norm of `b`.
fn distance(a: &Array, b: &Array) -> f32 {
    length(&a.subtract(b).unwrap()) / length(b)
}

fn length(a: &Array) -> f32 {
    let square = a.square().unwrap().sum(false).unwrap();
    square.item_exact::<f32>().sqrt()
}
