//! Sizes computed before writing.

use std::collections::BTreeMap;

use openelm_core::{
    Dtype,
    config::Preset,
    convert::{self, ConvertOptions, FileType, Format, Quantize, Recipe},
    internal::GgufReader,
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::{TempDir, write_zeros};

use crate::models::{convert, plain, read, small, with_source};

fn quantized(mode: QuantizationMode, bits: Option<usize>, group: Option<usize>) -> ConvertOptions {
    let quantization = Quantization::new(mode, bits, group).unwrap();
    ConvertOptions {
        quantize: Some(Quantize::uniform(quantization)),
        ..plain()
    }
}

/// A released model with sparse weight files.
fn sparse(preset: Preset) -> TempDir {
    let folder = TempDir::new();
    let config = preset.config();
    write_zeros(&folder, &config.to_json(), &config.tensors());
    folder
}

#[test]
fn sizes_of_released_models_in_4_bits() {
    for (preset, megabytes, bits) in [
        (Preset::Size270M, 153.0, 4.5),
        (Preset::Size450M, 257.0, 4.5),
        (Preset::Size1_1B, 608.0, 4.5),
        (Preset::Size3B, 1708.0, 4.5),
    ] {
        let folder = sparse(preset);
        let plan =
            convert::plan(&*folder, &quantized(QuantizationMode::Affine, None, None)).unwrap();
        let found = plan.bytes() as f64 / 1e6;
        assert!(
            (found / megabytes - 1.0).abs() < 0.01,
            "{preset}: {found} MB"
        );
        assert!(
            (plan.bits_per_weight() - bits).abs() < 0.01,
            "{preset}: {}",
            plan.bits_per_weight()
        );
        assert_eq!(plan.source_bytes, 2 * preset.config().parameter_count());
        // All four pack every matrix.
        let words = plan
            .tensors
            .iter()
            .filter(|tensor| tensor.dtype == "U32")
            .count();
        assert_eq!(words, 1 + 4 * preset.config().num_transformer_layers());
        let gguf = ConvertOptions {
            format: Format::Gguf(FileType::Q4_0),
            ..plain()
        };
        let plan = convert::plan(&*folder, &gguf).unwrap();
        // llama.cpp stores the embedding in 8 bits.
        let bits = plan.bits_per_weight();
        assert!((4.5..5.2).contains(&bits), "{preset}: {bits}");
    }
}

#[test]
fn shapes_of_every_packing() {
    let folder = with_source(&small(), Dtype::Bfloat16).0;
    let mut cases = Vec::new();
    for bits in [2, 3, 4, 5, 6, 8] {
        for group in [32, 64, 128] {
            cases.push((QuantizationMode::Affine, bits, group));
        }
    }
    cases.extend([
        (QuantizationMode::Mxfp4, 4, 32),
        (QuantizationMode::Mxfp8, 8, 32),
        (QuantizationMode::Nvfp4, 4, 16),
    ]);
    for (mode, bits, group) in cases {
        let options = quantized(mode, Some(bits), Some(group));
        let plan = convert::plan(folder.join("source"), &options).unwrap();
        let tensors: BTreeMap<&str, (&str, &[usize], u64)> = plan
            .tensors
            .iter()
            .map(|t| {
                (
                    t.name.as_str(),
                    (t.dtype.as_str(), t.shape.as_slice(), t.bytes),
                )
            })
            .collect();
        let weight = [96, 4 * bits];
        let words = ("U32", &weight[..], 96 * 16 * bits as u64);
        assert_eq!(tensors["transformer.token_embeddings.weight"], words);
        let groups = [96, 128 / group];
        let count = 96 * 128 / group as u64;
        let affine = mode == QuantizationMode::Affine;
        let scales = if affine {
            ("BF16", &groups[..], 2 * count)
        } else {
            ("U8", &groups[..], count)
        };
        assert_eq!(tensors["transformer.token_embeddings.scales"], scales);
        assert_eq!(
            tensors.get("transformer.token_embeddings.biases"),
            affine.then_some(&scales)
        );
        assert_eq!(
            tensors["transformer.norm.weight"],
            ("BF16", &[128][..], 256)
        );
        // The heads of the first layer have a total width of 64.
        let narrow = tensors["transformer.layers.0.attn.out_proj.weight"];
        if group == 128 {
            assert_eq!(narrow, ("BF16", &[128, 64][..], 16_384));
            assert!(!tensors.contains_key("transformer.layers.0.attn.out_proj.scales"));
        } else {
            assert_eq!(narrow, ("U32", &[128, 2 * bits][..], 128 * 8 * bits as u64));
        }
    }
}

#[test]
fn dry_run_matches_the_result() {
    let folder = with_source(&small(), Dtype::Float16).0;
    let source = folder.join("source");
    let mut recipe = quantized(QuantizationMode::Affine, None, Some(32));
    if let Some(quantize) = &mut recipe.quantize {
        quantize.recipe = Some(Recipe::Mixed3_6);
    }
    let cases = [
        ("plain", plain()),
        (
            "cast",
            ConvertOptions {
                dtype: Some(Dtype::Float32),
                ..plain()
            },
        ),
        (
            "shards",
            ConvertOptions {
                max_shard_bytes: 50_000,
                ..plain()
            },
        ),
        (
            "affine",
            quantized(QuantizationMode::Affine, Some(5), Some(128)),
        ),
        ("nvfp4", quantized(QuantizationMode::Nvfp4, None, None)),
        ("recipe", recipe),
    ];
    for (name, options) in cases {
        let plan = convert::plan(&source, &options).unwrap();
        assert!(!folder.join(name).exists());
        let report = convert(&source, &folder.join(name), &options).unwrap();
        let written = read(&folder.join(name));
        assert_eq!(written.len(), plan.tensors.len());
        for tensor in &plan.tensors {
            let found = &written[&tensor.name];
            assert_eq!(found.shape, tensor.shape, "{name} {}", tensor.name);
            assert_eq!(
                format!("{:?}", found.dtype),
                tensor.dtype,
                "{name} {}",
                tensor.name
            );
            assert_eq!(
                found.bytes.len() as u64,
                tensor.bytes,
                "{name} {}",
                tensor.name
            );
        }
        let bytes: usize = written.values().map(|tensor| tensor.bytes.len()).sum();
        assert_eq!((plan.bytes(), report.bytes), (bytes as u64, bytes as u64));
        assert_eq!(report.tensors, written.len());
    }
    for kind in FileType::ALL {
        let options = ConvertOptions {
            format: Format::Gguf(kind),
            ..plain()
        };
        let plan = convert::plan(&source, &options).unwrap();
        let file = folder.join(format!("{kind}.gguf"));
        convert(&source, &file, &options).unwrap();
        let reader = GgufReader::open(&file).unwrap();
        assert_eq!(reader.tensors().len(), plan.tensors.len());
        for tensor in &plan.tensors {
            let found = &reader.tensors()[&tensor.name];
            let found = (found.kind.to_string(), &found.shape, found.bytes());
            assert_eq!(found, (tensor.dtype.clone(), &tensor.shape, tensor.bytes));
        }
    }
}
