//! CoreNet checkpoints: `.pt` files of weights and of training runs, and folders of CoreNet's MLX
//! example.

use std::{fs, io::Write, path::Path};

use openelm_core::{
    Config, Dtype,
    config::{LayerWiseConfig, Preset},
    convert::{self, ConvertOptions, Quantize},
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::TempDir;
use safetensors::Dtype as Stored;
use serde_json::{Value, json};

use crate::{
    models::{
        Tensors, convert, difference, logits, logits_of, plain, random, read, settings, small,
        with_source, write_weights,
    },
    opcodes::{LEGACY_HEAD, long, rebuilt, storage, text},
    torch::{corenet, legacy_file, zip_file},
};

fn with(architecture: &Config) -> ConvertOptions {
    ConvertOptions {
        architecture: Some(architecture.clone()),
        ..plain()
    }
}

#[test]
fn both_formats_get_hugging_face_names() {
    let config = Config::layer_wise(LayerWiseConfig {
        share_input_output_layers: false,
        ..settings()
    })
    .unwrap();
    let folder = TempDir::new();
    for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
        let tensors = random(&config, dtype);
        let stored = corenet(&tensors, 96);
        assert!(stored.contains_key("layers.1.attn.qkv_proj.weight"));
        assert!(stored.contains_key("classifier.weight"));
        let files = [
            ("zip", zip_file(&[("", &stored)])),
            ("legacy", legacy_file(&[("", &stored)])),
            // Names that are already Hugging Face's.
            ("named", zip_file(&[("", &tensors)])),
        ];
        for (name, bytes) in files {
            let source = folder.join(format!("{name}-{dtype}.pt"));
            fs::write(&source, bytes).unwrap();
            let target = folder.join(format!("{name}-{dtype}"));
            let report = convert(&source, &target, &with(&config)).unwrap();
            assert_eq!(read(&target), tensors, "{name} {dtype}");
            assert_eq!(report.source_format, "PyTorch checkpoint");
            assert_eq!(report.source_bytes, report.bytes);
            assert_eq!(
                report.verification.unwrap().tensors.identical,
                tensors.len()
            );
            assert_eq!(
                difference(&logits(&target, false), &logits_of(&config, &tensors)),
                0.0
            );
        }
    }
}

#[test]
fn padding_rows_of_embeddings_are_removed() {
    let config = Config::layer_wise(LayerWiseConfig {
        model_dim: 16,
        head_dim: 8,
        ffn_dim_divisor: 16,
        vocab_size: 32_000,
        ..settings()
    })
    .unwrap();
    let folder = TempDir::new();
    let tensors = random(&config, Dtype::Float16);
    let stored = corenet(&tensors, 32_128);
    let source = folder.join("corenet.pt");
    fs::write(&source, zip_file(&[("", &stored)])).unwrap();
    let report = convert(&source, &folder.join("target"), &with(&config)).unwrap();
    assert_eq!(read(&folder.join("target")), tensors);
    assert_eq!(report.source_bytes - report.bytes, 2 * 128 * 16);
    let written = Config::load(folder.join("target")).unwrap();
    assert_eq!(written.vocab_size(), 32_000);

    // From a folder, which MLX reads.
    let mlx = folder.join("mlx");
    fs::create_dir(&mlx).unwrap();
    write_weights(&mlx.join("weights.safetensors"), &stored);
    fs::write(mlx.join("config.json"), r#"{"model_name": "OpenELM-270M"}"#).unwrap();
    let report = convert(&mlx, &folder.join("from-mlx"), &with(&config)).unwrap();
    assert_eq!(report.source_format, "CoreNet MLX folder");
    assert_eq!(read(&folder.join("from-mlx")), tensors);

    // Any other number of rows is a different model.
    let other = corenet(&tensors, 32_064);
    fs::write(&source, zip_file(&[("", &other)])).unwrap();
    let message = convert(&source, &folder.join("other"), &with(&config))
        .unwrap_err()
        .to_string();
    assert!(
        message
            .contains("`token_embeddings.weight`: expected shape [32000, 16], found [32064, 16]"),
        "{message}"
    );
}

#[test]
fn training_checkpoints_hold_model_and_average() {
    let folder = TempDir::new();
    let model = random(&small(), Dtype::Float32);
    let mut average = model.clone();
    for tensor in average.values_mut() {
        let halved: Vec<f32> = tensor.values().iter().map(|x| x / 2.0).collect();
        *tensor = crate::models::Tensor::of(Dtype::Float32, &tensor.shape, &halved);
    }
    let (stored, stored_average) = (corenet(&model, 96), corenet(&average, 96));
    let dicts = [
        ("model_state_dict", &stored),
        ("ema_state_dict", &stored_average),
    ];
    for (name, bytes) in [("zip", zip_file(&dicts)), ("legacy", legacy_file(&dicts))] {
        let source = folder.join(format!("{name}.pt"));
        fs::write(&source, bytes).unwrap();
        for (ema, expected) in [(false, &model), (true, &average)] {
            let target = folder.join(format!("{name}-{ema}"));
            let options = ConvertOptions {
                ema,
                ..with(&small())
            };
            convert(&source, &target, &options).unwrap();
            assert_eq!(&read(&target), expected, "{name} {ema}");
        }
    }
    let source = folder.join("plain.pt");
    fs::write(&source, zip_file(&[("", &stored)])).unwrap();
    let options = ConvertOptions {
        ema: true,
        ..with(&small())
    };
    let message = convert(&source, &folder.join("none"), &options)
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("plain.pt") && message.contains("`ema_state_dict`"),
        "{message}"
    );
}

/// A sparse legacy file with one storage, and the tensors of `config` in it.
fn sparse(path: &Path, config: &Config, rows: usize) {
    let mut pickle = b"\x80\x02}(".to_vec();
    let mut elements = 0;
    let tensors = config.tensors();
    let count = |shape: &[usize]| shape.iter().product::<usize>() as u64;
    let shape_of = |name: &str, shape: &[usize]| match (name, shape) {
        ("transformer.token_embeddings.weight", [_, width]) => vec![rows, *width],
        _ => shape.to_vec(),
    };
    let len = tensors
        .iter()
        .map(|(name, shape)| count(&shape_of(name, shape)))
        .sum();
    for (name, shape) in &tensors {
        let shape = shape_of(name, shape);
        let sizes: Vec<i32> = shape.iter().map(|&n| n as i32).collect();
        let strides = match sizes.as_slice() {
            [_, width] => vec![*width, 1],
            _ => vec![1],
        };
        let storage = storage("HalfStorage", "0", &long(len));
        pickle.extend(text(name.trim_start_matches("transformer.")));
        pickle.extend(rebuilt(&storage, &long(elements), &sizes, &strides));
        elements += count(&shape);
    }
    pickle.extend(b"u.\x80\x02]");
    pickle.extend([&text("0")[..], b"a."].concat());
    pickle.extend(len.to_le_bytes());
    let head = [LEGACY_HEAD, &pickle].concat();
    let mut file = fs::File::create(path).unwrap();
    file.write_all(&head).unwrap();
    file.set_len(head.len() as u64 + 2 * len).unwrap();
}

#[test]
fn detects_sizes_by_shapes_or_corenet_yaml() {
    let folder = TempDir::new();
    let yaml = folder.join("openelm.yaml");
    for (preset, parameters) in
        Preset::ALL
            .into_iter()
            .zip([271_527_168, 457_179_136, 1_079_891_456, 3_036_647_424])
    {
        let source = folder.join(format!("{}.pt", preset.name()));
        sparse(&source, &preset.config(), 32_128);
        let text = format!(
            "model:\n  language_modeling:\n    general_gpt:\n      model_name: {}\n      \
             vocab_size: 32128\n",
            preset.name()
        );
        fs::write(&yaml, text).unwrap();
        let json = folder.join("config.json");
        fs::write(&json, preset.config().to_json()).unwrap();
        for architecture in [
            None,
            Some(preset.name()),
            Some(yaml.to_str().unwrap()),
            Some(json.to_str().unwrap()),
        ] {
            let architecture = architecture.map(|name| convert::parse_architecture(name).unwrap());
            let options = ConvertOptions {
                architecture,
                ..plain()
            };
            let plan = convert::plan(&source, &options).unwrap();
            assert_eq!(plan.config.layers(), preset.config().layers());
            assert_eq!(plan.config.parameter_count(), parameters);
            assert_eq!(plan.bytes(), 2 * parameters);
            assert_eq!(
                plan.source_bytes - plan.bytes(),
                2 * 128 * plan.config.model_dim() as u64
            );
            assert_eq!(plan.tensors[0].source, "token_embeddings.weight");
            assert_eq!(plan.tensors[0].name, "transformer.token_embeddings.weight");
            assert_eq!(plan.tensors[0].dtype, "F16");
        }
    }
    let source = folder.join("OpenELM-270M.pt");
    let options = ConvertOptions {
        architecture: Some(Preset::Size450M.config()),
        ..plain()
    };
    let message = convert::plan(&source, &options).unwrap_err().to_string();
    assert!(
        message.contains("expected shape [32000, 1536], found [32128, 1280]"),
        "{message}"
    );
    sparse(&source, &small(), 96);
    let message = convert::plan(&source, &plain()).unwrap_err().to_string();
    assert!(
        message.contains("270M.pt") && message.contains("state the architecture"),
        "{message}"
    );
}

#[test]
fn quantized_mlx_folders_keep_their_packing() {
    let (folder, _) = with_source(&small(), Dtype::Float16);
    let quantization = Quantization::new(QuantizationMode::Affine, Some(4), Some(64)).unwrap();
    let options = ConvertOptions {
        quantize: Some(Quantize::uniform(quantization)),
        ..plain()
    };
    convert(&folder.join("source"), &folder.join("packed"), &options).unwrap();
    let packed = read(&folder.join("packed"));
    assert_eq!(
        packed["transformer.token_embeddings.weight"].dtype,
        Stored::U32
    );
    let stored: Tensors = packed
        .iter()
        .map(|(name, tensor)| (name.replace("transformer.", ""), tensor.clone()))
        .collect();
    let mlx = folder.join("mlx");
    fs::create_dir(&mlx).unwrap();
    write_weights(&mlx.join("weights.safetensors"), &stored);
    let block =
        json!({ "model_name": "OpenELM-270M", "quantization": { "group_size": 64, "bits": 4 } });
    fs::write(mlx.join("config.json"), block.to_string()).unwrap();
    convert(&mlx, &folder.join("target"), &with(&small())).unwrap();
    assert_eq!(read(&folder.join("target")), packed);
    let config: Value =
        serde_json::from_slice(&fs::read(folder.join("target/config.json")).unwrap()).unwrap();
    assert_eq!(
        config["quantization"],
        json!({ "group_size": 64, "bits": 4, "mode": "affine" })
    );

    // Without `architecture` the name decides; the shapes are not those of the named model.
    let message = convert(&mlx, &folder.join("none"), &plain())
        .unwrap_err()
        .to_string();
    assert!(message.contains("token_embeddings.weight"), "{message}");
    fs::write(mlx.join("config.json"), r#"{"model_name": "7B"}"#).unwrap();
    let message = convert(&mlx, &folder.join("none"), &plain())
        .unwrap_err()
        .to_string();
    assert!(
        message
            .ends_with("config.json: `model_name`: expected 270M, 450M, 1_1B or 3B, found \"7B\""),
        "{message}"
    );
    fs::write(mlx.join("config.json"), "{}").unwrap();
    let message = convert(&mlx, &folder.join("none"), &plain())
        .unwrap_err()
        .to_string();
    assert!(
        message.contains("config.json: `model_name`: missing"),
        "{message}"
    );
    assert!(!folder.join("none").exists());
}
