//! Quantising, requantising, dequantising, and keeping quantised matrices.

use std::{fs, path::Path};

use openelm_core::{
    Config, Dtype, LanguageModel, LoadOptions,
    config::LayerWiseConfig,
    convert::{ConvertOptions, FileType, Format, Quantize, TokenizerChoice},
    generation::{Event, GenerateOptions},
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::{TempDir, tales};
use safetensors::Dtype as Stored;
use serde_json::{Value, json};

use crate::{
    models::{
        convert, difference, logits, logits_of, plain, read, settings, small, talking, with_source,
    },
    torch::{corenet, zip_file},
};

fn affine(bits: usize, group: usize) -> ConvertOptions {
    packed_as(QuantizationMode::Affine, bits, group)
}

fn packed_as(mode: QuantizationMode, bits: usize, group: usize) -> ConvertOptions {
    let quantization = Quantization::new(mode, Some(bits), Some(group)).unwrap();
    ConvertOptions {
        quantize: Some(Quantize::uniform(quantization)),
        ..plain()
    }
}

fn config_json(folder: &TempDir, model: &str) -> Value {
    serde_json::from_slice(&fs::read(folder.join(model).join("config.json")).unwrap()).unwrap()
}

#[test]
fn quantized_and_dequantized_logits_agree() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    let exact = logits_of(&small(), &tensors);
    // The largest relative error of a matrix, by bits.
    let affine_errors = [
        (2, 0.6),
        (3, 0.26),
        (4, 0.13),
        (5, 0.06),
        (6, 0.03),
        (8, 0.007),
    ];
    let mut cases: Vec<_> = affine_errors
        .iter()
        .flat_map(|&(bits, error)| {
            [32, 64, 128].map(|group| (QuantizationMode::Affine, bits, group, error))
        })
        .collect();
    cases.extend([
        (QuantizationMode::Mxfp4, 4, 32, 0.2),
        (QuantizationMode::Mxfp8, 8, 32, 0.05),
        (QuantizationMode::Nvfp4, 4, 16, 0.2),
    ]);
    for (mode, bits, group, error) in cases {
        let name = format!("{}-{bits}-{group}", mode.name());
        let target = folder.join(&name);
        let report = convert(
            &folder.join("source"),
            &target,
            &packed_as(mode, bits, group),
        )
        .unwrap();
        let block = json!({ "group_size": group, "bits": bits, "mode": mode.name() });
        let config = config_json(&folder, &name);
        assert_eq!(
            (&config["quantization"], &config["quantization_config"]),
            (&block, &block)
        );
        let verification = report.verification.unwrap();
        let dense = if group == 128 { 1 } else { 0 };
        assert_eq!(verification.tensors.quantized, 9 - dense, "{name}");
        assert_eq!(
            verification.tensors.identical,
            tensors.len() - 9 + dense,
            "{name}"
        );
        assert_eq!(verification.worst.len(), 5);
        let worst = verification.worst[0].relative_error;
        assert!(worst < error && worst > error / 6.0, "{name}: {worst}");

        let (packed, expanded) = (logits(&target, true), logits(&target, false));
        let apart = difference(&packed, &expanded);
        assert!(apart < 2e-5, "{name}: {apart}");
        assert!(difference(&expanded, &exact) > 0.0);
        // The packed values equal those of a conversion that dequantises.
        let dense = folder.join(format!("{name}-dense"));
        let options = ConvertOptions {
            dequantize: true,
            ..plain()
        };
        convert(&target, &dense, &options).unwrap();
        assert_eq!(difference(&logits(&dense, false), &expanded), 0.0, "{name}");
    }
}

#[test]
fn indivisible_rows_stay_unquantized() {
    let (folder, tensors) = with_source(&small(), Dtype::Float16);
    convert(
        &folder.join("source"),
        &folder.join("target"),
        &affine(4, 128),
    )
    .unwrap();
    let written = read(&folder.join("target"));
    let narrow = "transformer.layers.0.attn.out_proj.weight";
    assert_eq!(written[narrow], tensors[narrow]);
    assert_eq!(
        written["transformer.layers.1.attn.out_proj.weight"].dtype,
        Stored::U32
    );
    assert_eq!(
        written["transformer.layers.1.attn.out_proj.scales"].dtype,
        Stored::F16
    );
    // As in mlx-lm, matrices without scales are dense: the block lists no exceptions.
    let block = json!({ "group_size": 128, "bits": 4, "mode": "affine" });
    assert_eq!(config_json(&folder, "target")["quantization"], block);
    for (name, tensor) in &tensors {
        if tensor.shape.len() == 1 {
            assert_eq!(&written[name], tensor);
        }
    }
}

#[test]
fn scales_have_the_requested_dtype() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let options = ConvertOptions {
        dtype: Some(Dtype::Bfloat16),
        ..affine(4, 64)
    };
    convert(&folder.join("source"), &folder.join("target"), &options).unwrap();
    let written = read(&folder.join("target"));
    for (name, tensor) in &written {
        let packed = name.ends_with(".weight") && tensor.shape.len() == 2;
        assert_eq!(
            tensor.dtype,
            if packed { Stored::U32 } else { Stored::BF16 },
            "{name}"
        );
    }
    assert_eq!(config_json(&folder, "target")["torch_dtype"], "bfloat16");
    // A second cast keeps the packed words.
    let options = ConvertOptions {
        dtype: Some(Dtype::Float32),
        ..plain()
    };
    convert(&folder.join("target"), &folder.join("wide"), &options).unwrap();
    let wide = read(&folder.join("wide"));
    for (name, tensor) in &written {
        match tensor.dtype {
            Stored::U32 => assert_eq!(&wide[name], tensor),
            _ => assert_eq!(wide[name], tensor.cast(Dtype::Float32)),
        }
    }
    assert_eq!(
        difference(
            &logits(&folder.join("wide"), true),
            &logits(&folder.join("target"), true)
        ),
        0.0
    );
}

#[test]
fn quantized_source_is_kept_bit_for_bit() {
    for (name, first) in [
        ("affine", affine(6, 32)),
        ("mxfp8", packed_as(QuantizationMode::Mxfp8, 8, 32)),
        ("nvfp4", packed_as(QuantizationMode::Nvfp4, 4, 16)),
    ] {
        let (folder, tensors) = with_source(&small(), Dtype::Bfloat16);
        convert(&folder.join("source"), &folder.join("packed"), &first).unwrap();
        let packed = read(&folder.join("packed"));
        let again = ConvertOptions {
            max_shard_bytes: 30_000,
            ..first
        };
        for (target, options) in [("plain", plain()), ("again", again)] {
            let report = convert(&folder.join("packed"), &folder.join(target), &options).unwrap();
            assert_eq!(report.source_format, "quantised MLX folder");
            assert_eq!(
                report.verification.unwrap().tensors.identical,
                tensors.len()
            );
            assert_eq!(read(&folder.join(target)), packed, "{name} {target}");
            let block = &config_json(&folder, target)["quantization"];
            assert_eq!(block, &config_json(&folder, "packed")["quantization"]);
        }
    }
}

#[test]
fn packings_can_be_changed_and_dequantized() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    convert(&folder.join("source"), &folder.join("8"), &affine(8, 64)).unwrap();
    convert(&folder.join("8"), &folder.join("4"), &affine(4, 32)).unwrap();
    let words = |model: &str| {
        read(&folder.join(model))["transformer.token_embeddings.weight"]
            .shape
            .clone()
    };
    assert_eq!((words("8"), words("4")), (vec![96, 32], vec![96, 16]));
    assert_eq!(config_json(&folder, "4")["quantization"]["bits"], 4);
    // Equal to quantising the dequantised matrices.
    let dequantize = ConvertOptions {
        dequantize: true,
        ..plain()
    };
    convert(&folder.join("8"), &folder.join("dense"), &dequantize).unwrap();
    convert(
        &folder.join("dense"),
        &folder.join("dense-4"),
        &affine(4, 32),
    )
    .unwrap();
    assert_eq!(read(&folder.join("4")), read(&folder.join("dense-4")));

    let dense = read(&folder.join("dense"));
    assert!(dense.keys().eq(tensors.keys()));
    assert!(config_json(&folder, "dense").get("quantization").is_none());
    for (name, tensor) in &dense {
        assert_eq!(tensor.dtype, Stored::F32);
        let most = difference(&tensor.values(), &tensors[name].values());
        assert!(most < 0.003, "{name}: {most}");
    }
    // Hugging Face folders and GGUF files are dequantised, too.
    let options = ConvertOptions {
        format: Format::HuggingFace,
        ..plain()
    };
    convert(&folder.join("8"), &folder.join("hf"), &options).unwrap();
    assert_eq!(read(&folder.join("hf")), dense);
    let options = ConvertOptions {
        format: Format::Gguf(FileType::F32),
        ..plain()
    };
    convert(&folder.join("8"), &folder.join("8.gguf"), &options).unwrap();
    convert(&folder.join("8.gguf"), &folder.join("from-gguf"), &plain()).unwrap();
    assert_eq!(read(&folder.join("from-gguf")), dense);
}

#[test]
fn quantizes_tied_and_untied_heads() {
    for shared in [true, false] {
        let config = Config::layer_wise(LayerWiseConfig {
            share_input_output_layers: shared,
            ..settings()
        })
        .unwrap();
        let (folder, _) = with_source(&config, Dtype::Float32);
        convert(
            &folder.join("source"),
            &folder.join("target"),
            &affine(8, 64),
        )
        .unwrap();
        let written = read(&folder.join("target"));
        assert_eq!(written.contains_key("lm_head.scales"), !shared);
        assert_eq!(
            written["transformer.token_embeddings.weight"].dtype,
            Stored::U32
        );
        let target = folder.join("target");
        let (packed, expanded) = (logits(&target, true), logits(&target, false));
        assert!(difference(&packed, &expanded) < 2e-5);
        // Only the head's matrix is quantised.
        let dense = ConvertOptions {
            dequantize: true,
            ..plain()
        };
        convert(&target, &folder.join("dense"), &dense).unwrap();
        let mut tensors = read(&folder.join("dense"));
        assert_eq!(difference(&logits_of(&config, &tensors), &expanded), 0.0);
        let head = if shared {
            "transformer.token_embeddings.weight"
        } else {
            "lm_head.weight"
        };
        tensors.get_mut(head).unwrap().bytes[..128 * 4].fill(0);
        let changed = logits_of(&config, &tensors);
        assert!(changed[0].abs() < 1e-6 && (expanded[0] - changed[0]).abs() > 1e-3);
    }
}

#[test]
fn quantized_and_dequantized_text_agree() {
    let (folder, _) = with_source(&talking(), Dtype::Float32);
    let options = ConvertOptions {
        tokenizer: TokenizerChoice::Path(tales()),
        ..affine(8, 64)
    };
    convert(&folder.join("source"), &folder.join("target"), &options).unwrap();
    let text = |keep| {
        let options = LoadOptions {
            dtype: Some(Dtype::Float32),
            keep_quantized: Some(keep),
            ..LoadOptions::default()
        };
        let model = LanguageModel::load(folder.join("target"), &options).unwrap();
        let options = GenerateOptions {
            max_tokens: 12,
            ..GenerateOptions::default()
        };
        let mut ids = Vec::new();
        for event in model.generate("Once upon a time", options).unwrap() {
            if let Event::Token(token) = event.unwrap() {
                ids.push(token.id);
            }
        }
        ids
    };
    let packed = text(true);
    assert!(packed.len() > 1, "{packed:?}");
    assert_eq!(packed, text(false));
}

#[test]
fn every_source_format_quantizes_equally() {
    let (folder, tensors) = with_source(&small(), Dtype::Float32);
    let pt = folder.join("corenet.pt");
    fs::write(&pt, zip_file(&[("", &corenet(&tensors, 96))])).unwrap();
    let gguf = folder.join("small.gguf");
    let options = ConvertOptions {
        format: Format::Gguf(FileType::F32),
        ..plain()
    };
    convert(&folder.join("source"), &gguf, &options).unwrap();
    for (name, options) in [
        ("affine", affine(4, 64)),
        ("mxfp4", packed_as(QuantizationMode::Mxfp4, 4, 32)),
    ] {
        let options = ConvertOptions {
            dtype: Some(Dtype::Bfloat16),
            architecture: Some(small()),
            ..options
        };
        let of = |source: &Path, from: &str| {
            let target = folder.join(format!("{name}-{from}"));
            convert(source, &target, &options).unwrap();
            read(&target)
        };
        let expected = of(&folder.join("source"), "folder");
        assert_eq!(of(&pt, "pt"), expected);
        assert_eq!(of(&gguf, "gguf"), expected);
    }
}
