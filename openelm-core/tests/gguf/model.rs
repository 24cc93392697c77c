//! Configuration and weights of a model.

use std::fs;

use openelm_core::{
    Config,
    config::{LayerWiseConfig, Multipliers},
};
use openelm_core::{Error, config::Preset};
use openelm_core::{
    convert::FileType,
    internal::{
        GgufReader, GgufWriter, TensorSpec, TensorType, Value, Vocabulary, check_tensors,
        config_from_gguf, metadata, name_from_gguf, read_tensor, tensor_plan,
    },
};
use openelm_testing::TempFile;

use crate::files::{model_file, small, spec, written};

#[test]
fn model_round_trips_in_every_type() {
    // The largest rounding error of values up to 0.5.
    let cases = [
        (FileType::F32, 0.0),
        (FileType::F16, 0.000_123),
        (FileType::Bf16, 0.000_98),
        (FileType::Q8_0, 0.0022),
        (FileType::Q4_0, 0.064),
    ];
    for (kind, worst) in cases {
        let config = small();
        let (bytes, weights) = model_file(&config, kind);
        let file = TempFile::new("test.gguf", &bytes);
        let mut reader = GgufReader::open(&*file).unwrap();
        let read = config_from_gguf(&reader).unwrap();
        assert_eq!(read.to_json(), config.to_json());
        assert_eq!(name_from_gguf(&reader), Some("Small"));
        check_tensors(&reader, &config).unwrap();
        let mut found = 0.0f32;
        for (name, values) in &weights {
            let data = read_tensor(&mut reader, name).unwrap().to_f32();
            assert_eq!(data.len(), values.len());
            let exact = name.contains("norm");
            for (a, b) in std::iter::zip(&data, values) {
                found = found.max((a - b).abs());
                assert!(
                    (a - b).abs() <= if exact { 0.0 } else { worst },
                    "{kind} {name}"
                );
            }
        }
        assert!(found >= worst * 0.8, "{kind}: {found}");
    }
}

#[test]
fn released_settings_round_trip() {
    for preset in [Preset::Size270M, Preset::Size1_1B] {
        let config = preset.config();
        let entries = metadata(&config, preset.name(), FileType::Q4_0, None).unwrap();
        let plan = tensor_plan(&config, FileType::Q4_0).unwrap();
        let specs: Vec<TensorSpec> = plan.iter().map(|planned| planned.tensor.clone()).collect();
        let size: usize = specs
            .iter()
            .map(|spec| {
                let blocks = spec.shape.iter().product::<usize>() / spec.kind.block_elements();
                (blocks * spec.kind.block_bytes()).next_multiple_of(32)
            })
            .sum();
        let mut head = Vec::new();
        drop(GgufWriter::new(&mut head, "new.gguf", &entries, specs).unwrap());
        // A sparse file in place of the weights.
        let file = TempFile::new("test.gguf", &head);
        let hole = fs::OpenOptions::new().write(true).open(&*file).unwrap();
        hole.set_len((head.len() + size) as u64).unwrap();
        let reader = GgufReader::open(&*file).unwrap();
        let read = config_from_gguf(&reader).unwrap();
        check_tensors(&reader, &read).unwrap();
        assert_eq!(read.to_json(), config.to_json());
        assert_eq!(Vocabulary::from_gguf(&reader).unwrap(), None);
        assert_eq!(reader.metadata()["general.file_type"], Value::Uint32(2));
        let heads = reader.metadata()["openelm.attention.head_count_kv"]
            .as_array()
            .unwrap();
        let first = if preset == Preset::Size270M { 3 } else { 4 };
        assert_eq!(heads[0], Value::Int32(first));
    }
}

#[test]
fn irregular_heads_round_trip_as_lists() {
    let mut json: serde_json::Value = serde_json::from_str(&small().to_json()).unwrap();
    let map = json.as_object_mut().unwrap();
    map.remove("qkv_multipliers");
    map.insert("num_gqa_groups".into(), 2.into());
    map.insert("num_query_heads".into(), vec![2, 6, 4].into());
    map.insert("num_kv_heads".into(), vec![1, 3, 2].into());
    map.insert("ffn_multipliers".into(), vec![0.5, 1.5, 1.0].into());
    let config = Config::from_json(&json.to_string(), "t").unwrap();
    let (bytes, _) = model_file(&config, FileType::F16);
    let file = TempFile::new("test.gguf", &bytes);
    let read = config_from_gguf(&GgufReader::open(&*file).unwrap()).unwrap();
    assert_eq!(read.layers(), config.layers());
    assert_eq!(read.qkv_multipliers(), None);
    assert_eq!(read.num_gqa_groups(), Some(2));
    assert_eq!(
        read.ffn_multipliers(),
        &Multipliers::PerLayer(vec![0.5, 1.5, 1.0])
    );
}

/// The metadata of a small model, one entry changed, and its tensors.
fn changed(edit: impl FnOnce(&mut Vec<(String, Value)>)) -> Vec<u8> {
    let config = small();
    let mut entries = metadata(&config, "Small", FileType::F32, None).unwrap();
    edit(&mut entries);
    let plan = tensor_plan(&config, FileType::F32).unwrap();
    let tensors: Vec<(TensorSpec, Vec<f32>)> = plan
        .into_iter()
        .map(|planned| {
            let elements = planned.tensor.shape.iter().product();
            (planned.tensor, vec![0.0; elements])
        })
        .collect();
    written(&entries, &tensors).unwrap()
}

#[test]
fn rejects_invalid_settings_by_key() {
    let set = |key: &'static str, value: Value| {
        changed(move |entries| {
            entries.retain(|(other, _)| other != key);
            entries.push((key.to_owned(), value));
        })
    };
    let without = |key: &str| changed(|entries| entries.retain(|(other, _)| other != key));
    let cases = [
        (
            set("general.architecture", "llama".into()),
            "expected \"openelm\", found \"llama\"",
        ),
        (
            without("openelm.block_count"),
            "`openelm.block_count`: missing from the metadata",
        ),
        (
            set("openelm.block_count", 5000u32.into()),
            "from 1 to 1024, found 5000",
        ),
        (
            set("openelm.block_count", Value::Int32(-1)),
            "expected an integer, found -1",
        ),
        (
            set("openelm.block_count", 2u32.into()),
            "expected 2 integers",
        ),
        (
            set("openelm.attention.head_count", Value::ints([4, 4])),
            "`openelm.attention.head_count`: expected 3 integers (openelm.block_count), found 2",
        ),
        (
            set("openelm.attention.head_count_kv", 0u32.into()),
            "`num_kv_heads`",
        ),
        (set("openelm.feed_forward_length", 0u32.into()), "`ffn_"),
        (set("openelm.embedding_length", 0u32.into()), "multipliers`"),
        (
            set("openelm.attention.value_length", 8u32.into()),
            "expected 16, the width of a key",
        ),
        (
            set("openelm.rope.dimension_count", 8u32.into()),
            "expected 16, the width of a key",
        ),
        (
            set("openelm.rope.scaling.type", "yarn".into()),
            "not supported, found \"yarn\"",
        ),
        (
            set("openelm.rope.freq_base", f32::NAN.into()),
            "expected a number, found NaN",
        ),
        (
            without("openelm.attention.layer_norm_rms_epsilon"),
            "`openelm.attention.layer_norm_rms_epsilon`: missing",
        ),
        (
            set("openelm.vocab_size", 7u32.into()),
            "7 where the embedding has 2050 rows",
        ),
        (
            set("tokenizer.ggml.bos_token_id", 2050u32.into()),
            "`bos_token_id`",
        ),
    ];
    for (bytes, expected) in cases {
        let file = TempFile::new("test.gguf", &bytes);
        let reader = GgufReader::open(&*file).unwrap();
        let message = config_from_gguf(&reader).unwrap_err().to_string();
        assert!(
            message.starts_with(&file.display().to_string()),
            "{message}"
        );
        assert!(message.contains(expected), "{message}: expected {expected}");
    }
}

#[test]
fn one_number_applies_to_every_layer() {
    let config = Config::layer_wise(LayerWiseConfig {
        model_dim: 64,
        num_transformer_layers: 2,
        head_dim: 16,
        num_gqa_groups: Some(1),
        qkv_multipliers: Multipliers::Uniform(1.0),
        ffn_multipliers: Multipliers::Uniform(2.0),
        vocab_size: 2050,
        ffn_dim_divisor: 32,
        ..LayerWiseConfig::default()
    })
    .unwrap();
    let mut entries = metadata(&config, "Even", FileType::F32, None).unwrap();
    entries.retain(|(key, _)| !key.contains("head_count") && !key.contains("feed_forward"));
    entries.push(("openelm.attention.head_count".into(), 4u32.into()));
    entries.push(("openelm.feed_forward_length".into(), Value::Uint64(128)));
    let plan = tensor_plan(&config, FileType::F32).unwrap();
    let tensors: Vec<_> = plan
        .into_iter()
        .map(|planned| {
            let elements = planned.tensor.shape.iter().product();
            (planned.tensor, vec![0.0; elements])
        })
        .collect();
    let file = TempFile::new("test.gguf", written(&entries, &tensors).unwrap());
    let reader = GgufReader::open(&*file).unwrap();
    let read = config_from_gguf(&reader).unwrap();
    assert_eq!(read.layers(), config.layers());
    assert_eq!(read.num_gqa_groups(), Some(1));
    check_tensors(&reader, &read).unwrap();
}

#[test]
fn rejects_other_tensors_by_name() {
    let config = small();
    let plan = tensor_plan(&config, FileType::F32).unwrap();
    let tensors = |edit: &dyn Fn(&mut Vec<TensorSpec>)| {
        let mut specs: Vec<TensorSpec> =
            plan.iter().map(|planned| planned.tensor.clone()).collect();
        edit(&mut specs);
        let tensors: Vec<_> = specs
            .into_iter()
            .map(|spec| {
                let elements = spec.shape.iter().product();
                (spec, vec![0.0; elements])
            })
            .collect();
        let file = TempFile::new("test.gguf", written(&[], &tensors).unwrap());
        check_tensors(&GgufReader::open(&*file).unwrap(), &config).unwrap_err()
    };
    let missing = tensors(&|specs| specs.retain(|spec| spec.name != "blk.2.ffn_up.weight"));
    assert!(matches!(missing, Error::MissingTensor { name, .. } if name == "blk.2.ffn_up.weight"));
    let shape = tensors(&|specs| specs[3].shape.push(1));
    assert!(matches!(shape, Error::TensorShape { name, .. } if name == "blk.0.attn_q_norm.weight"));
    let head = tensors(&|specs| specs.push(spec("output.weight", TensorType::F32, &[2050, 64])));
    assert!(matches!(head, Error::UnexpectedTensor { name, .. } if name == "output.weight"));
}
