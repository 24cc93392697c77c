//! Hugging Face and mlx-lm folders, without quantisation.

use std::{collections::BTreeMap, fs};

use openelm_core::{
    Config, Dtype,
    config::LayerWiseConfig,
    convert::{ConvertOptions, Format},
};
use openelm_testing::{TempDir, tales};
use safetensors::{Dtype as Stored, SafeTensors};
use serde_json::Value;

use crate::models::{
    Tensors, convert, difference, files, logits, logits_of, plain, random, read, settings, small,
    talking, with_source, write_model, write_weights,
};

const DTYPES: [Dtype; 3] = [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16];

fn json(folder: &TempDir, name: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(name)).unwrap()).unwrap()
}

#[test]
fn plain_conversion_keeps_every_value() {
    for dtype in DTYPES {
        let (folder, tensors) = with_source(&small(), dtype);
        for format in [Format::Mlx, Format::HuggingFace] {
            let target = folder.join(format.name());
            let options = ConvertOptions { format, ..plain() };
            let report = convert(&folder.join("source"), &target, &options).unwrap();
            assert_eq!(read(&target), tensors);
            let size = if dtype == Dtype::Float32 { 4 } else { 2 };
            assert_eq!(report.bytes, small().parameter_count() * size);
            assert_eq!(report.bits_per_weight, 8.0 * size as f64);
            assert_eq!(report.source_format, "Hugging Face folder");
            assert_eq!(report.tensors, tensors.len());
            let verification = report.verification.unwrap();
            assert_eq!(verification.tensors.identical, tensors.len());
            assert_eq!(
                (verification.tensors.rounded, verification.tensors.quantized),
                (0, 0)
            );
            assert_eq!((verification.tokens, verification.text), (4, false));
            assert_eq!(
                (verification.mean_kl, verification.top1_agreement),
                (0.0, 1.0)
            );

            let config = Config::load(&target).unwrap();
            assert_eq!(config.layers(), small().layers());
            assert_eq!(
                json(&folder, &format!("{}/config.json", format.name()))["torch_dtype"],
                dtype.to_string()
            );
            let expected = logits_of(&small(), &tensors);
            assert_eq!(difference(&logits(&target, false), &expected), 0.0);
        }
    }
}

#[test]
fn casts_round_like_the_half_crate() {
    for from in DTYPES {
        let (folder, mut tensors) = with_source(&small(), from);
        // Ties to even, the largest float16, subnormals, both zeros.
        let odd = [
            1.0 + 1.0 / 2048.0,
            1.0 + 3.0 / 2048.0,
            1.003_906_3,
            65_280.0,
            6e-8,
            -1e-7,
            -0.0,
        ];
        let norm = tensors.get_mut("transformer.norm.weight").unwrap();
        let mut values = norm.values();
        values[..odd.len()].copy_from_slice(&odd);
        *norm = crate::models::Tensor::of(from, &norm.shape, &values);
        write_model(&folder.join("source"), &small(), &tensors);
        for to in DTYPES {
            let target = folder.join(to.to_string());
            let options = ConvertOptions {
                dtype: Some(to),
                ..plain()
            };
            let report = convert(&folder.join("source"), &target, &options).unwrap();
            let expected: Tensors = tensors
                .iter()
                .map(|(n, t)| (n.clone(), t.cast(to)))
                .collect();
            assert_eq!(read(&target), expected, "{from} to {to}");
            let checks = report.verification.unwrap().tensors;
            assert_eq!(checks.identical + checks.rounded, tensors.len());
            let loses = to != Dtype::Float32 && to != from;
            assert_eq!(checks.rounded > 0, loses, "{from} to {to}: {checks:?}");
        }
    }
}

#[test]
fn mixed_dtypes_are_kept() {
    let (folder, mut tensors) = with_source(&small(), Dtype::Float16);
    let full = random(&small(), Dtype::Float32);
    for (name, tensor) in &mut tensors {
        if name.contains("norm") {
            *tensor = full[name].clone();
        }
    }
    write_model(&folder.join("source"), &small(), &tensors);
    convert(&folder.join("source"), &folder.join("target"), &plain()).unwrap();
    assert_eq!(read(&folder.join("target")), tensors);
    assert_eq!(
        json(&folder, "target/config.json")["torch_dtype"],
        "float16"
    );
}

#[test]
fn writes_index_and_metadata() {
    let (folder, tensors) = with_source(&small(), Dtype::Bfloat16);
    for (format, says) in [(Format::Mlx, "mlx"), (Format::HuggingFace, "pt")] {
        let target = folder.join(format.name());
        let options = ConvertOptions { format, ..plain() };
        convert(&folder.join("source"), &target, &options).unwrap();
        let names: Vec<String> = files(&target).into_keys().collect();
        let expected = [
            "config.json",
            "convert-report.json",
            "generation_config.json",
            "model.safetensors",
            "model.safetensors.index.json",
        ];
        assert_eq!(names, expected);
        let bytes = fs::read(target.join("model.safetensors")).unwrap();
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        let metadata = metadata.metadata().as_ref().unwrap();
        assert_eq!(metadata["format"], says);
        let index = json(
            &folder,
            &format!("{}/model.safetensors.index.json", format.name()),
        );
        assert_eq!(
            index["metadata"]["total_size"],
            2 * small().parameter_count()
        );
        assert_eq!(
            index["metadata"]["total_parameters"],
            small().parameter_count()
        );
        let map = index["weight_map"].as_object().unwrap();
        assert_eq!(map.len(), tensors.len());
        assert!(map.values().all(|file| file == "model.safetensors"));
        let config = json(&folder, &format!("{}/config.json", format.name()));
        assert_eq!(config["architectures"][0], "OpenELMForCausalLM");
        assert_eq!(config.get("quantization"), None);
        let report = json(&folder, &format!("{}/convert-report.json", format.name()));
        assert_eq!(report["format"], format.name());
        assert_eq!(
            report["verification"]["tensors"]["identical"],
            tensors.len()
        );
    }
}

#[test]
fn shards_round_trip() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    let limit = 100_000;
    let options = ConvertOptions {
        max_shard_bytes: limit,
        ..plain()
    };
    convert(&folder.join("source"), &folder.join("shards"), &options).unwrap();
    let shards: Vec<String> = files(&folder.join("shards"))
        .into_keys()
        .filter(|name| name.ends_with(".safetensors"))
        .collect();
    assert!(shards.len() > 4, "{shards:?}");
    let count = shards.len();
    let expected: Vec<String> = (1..=count)
        .map(|i| format!("model-{i:05}-of-{count:05}.safetensors"))
        .collect();
    assert_eq!(shards, expected);
    let index = json(&folder, "shards/model.safetensors.index.json");
    let mut listed = BTreeMap::new();
    for shard in &shards {
        let bytes = fs::read(folder.join("shards").join(shard)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let size: usize = file.iter().map(|(_, tensor)| tensor.data().len()).sum();
        assert!(size as u64 <= limit || file.len() == 1, "{shard}: {size}");
        let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["format"], "mlx");
        listed.extend(
            file.names()
                .into_iter()
                .map(|name| (name.to_owned(), shard.clone())),
        );
    }
    assert_eq!(index["weight_map"], serde_json::to_value(&listed).unwrap());
    assert_eq!(
        index["metadata"]["total_size"],
        4 * small().parameter_count()
    );
    assert_eq!(read(&folder.join("shards")), tensors);
    let expected = logits_of(&small(), &tensors);
    assert_eq!(
        difference(&logits(&folder.join("shards"), false), &expected),
        0.0
    );

    // Back to a single file.
    convert(&folder.join("shards"), &folder.join("single"), &plain()).unwrap();
    assert!(folder.join("single/model.safetensors").is_file());
    assert_eq!(read(&folder.join("single")), tensors);
}

#[test]
fn converts_untied_heads_and_plain_ffns() {
    for (glu, norms, shared) in [(false, true, true), (true, false, false)] {
        let config = Config::layer_wise(LayerWiseConfig {
            ffn_with_glu: glu,
            normalize_qk_projections: norms,
            share_input_output_layers: shared,
            ..settings()
        })
        .unwrap();
        let (folder, tensors) = with_source(&config, Dtype::Float16);
        let target = folder.join("target");
        let report = convert(&folder.join("source"), &target, &plain()).unwrap();
        assert_eq!(tensors.contains_key("lm_head.weight"), !shared);
        assert_eq!(read(&target), tensors);
        assert_eq!(report.verification.unwrap().mean_kl, 0.0);
        assert_eq!(
            difference(&logits(&target, false), &logits_of(&config, &tensors)),
            0.0
        );
    }
}

#[test]
fn force_replaces_the_target() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    let target = folder.join("target");
    let options = ConvertOptions {
        dtype: Some(Dtype::Float16),
        ..plain()
    };
    convert(&folder.join("source"), &target, &options).unwrap();
    fs::write(target.join("tokenizer.json"), "of the old model").unwrap();
    fs::write(target.join("notes.txt"), "mine").unwrap();
    fs::create_dir(target.join("adapters")).unwrap();
    fs::write(target.join("adapters/adapter_config.json"), "mine").unwrap();
    let options = ConvertOptions {
        force: true,
        ..plain()
    };
    convert(&folder.join("source"), &target, &options).unwrap();
    assert_eq!(read(&target), tensors);
    assert!(!target.join("tokenizer.json").exists());
    assert!(target.join("adapters/adapter_config.json").exists());
    assert_eq!(fs::read(target.join("notes.txt")).unwrap(), b"mine");
    assert_eq!(folder.names(), ["source", "target"]);
}

#[test]
fn copies_tokenizer_and_other_files() {
    let (folder, _) = with_source(&talking(), Dtype::Float32);
    let source = folder.join("source");
    fs::copy(
        tales().join("tokenizer.json"),
        source.join("tokenizer.json"),
    )
    .unwrap();
    fs::write(source.join("generation_config.json"), "{\"max_length\": 7}").unwrap();
    fs::write(source.join("LICENSE"), "free").unwrap();
    fs::write(source.join("notes.txt"), "mine").unwrap();
    let options = ConvertOptions::default();
    let report = convert(&source, &folder.join("target"), &options).unwrap();
    let verification = report.verification.unwrap();
    assert_eq!((verification.text, verification.tokens), (true, 64));
    let (before, after) = (files(&source), files(&folder.join("target")));
    for name in ["tokenizer.json", "generation_config.json", "LICENSE"] {
        assert_eq!(after.get(name), before.get(name), "{name}");
    }
    assert_eq!(after.get("notes.txt"), None);
    let config = json(&folder, "target/tokenizer_config.json");
    assert_eq!(config["tokenizer_class"], "LlamaTokenizer");
    assert_eq!(
        (&config["bos_token"], &config["add_bos_token"]),
        (&Value::from("<s>"), &Value::from(true))
    );

    // A tokenizer from another path: a file or a folder.
    fs::remove_file(source.join("tokenizer.json")).unwrap();
    for (name, place) in [
        ("file", tales().join("tokenizer.json")),
        ("folder", tales()),
    ] {
        let options = ConvertOptions {
            tokenizer: openelm_core::convert::TokenizerChoice::Path(place),
            ..ConvertOptions::default()
        };
        convert(&source, &folder.join(name), &options).unwrap();
        let found = fs::read(folder.join(name).join("tokenizer.json")).unwrap();
        assert_eq!(Some(&found), before.get("tokenizer.json"));
    }
}

#[test]
fn converts_norms_of_zeros() {
    let (folder, mut tensors) = with_source(&small(), Dtype::Float16);
    for (name, tensor) in &mut tensors {
        if name.contains("ffn_norm") {
            tensor.bytes.fill(0);
        }
    }
    assert_eq!(tensors["transformer.norm.weight"].dtype, Stored::F16);
    write_weights(&folder.join("source/model.safetensors"), &tensors);
    convert(&folder.join("source"), &folder.join("target"), &plain()).unwrap();
    assert_eq!(read(&folder.join("target")), tensors);
}
