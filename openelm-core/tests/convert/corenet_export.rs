//! Conversion to CoreNet's formats and back.

use std::fs;

use openelm_core::{
    Config, Dtype,
    config::{LayerWiseConfig, Preset},
    convert::{ConvertOptions, Format, Quantize},
    internal::TorchFile,
    quantization::{Quantization, QuantizationMode},
};
use serde_json::Value;

use crate::models::{convert, plain, random, read, settings, small, with_source, write_model};

fn to(format: Format) -> ConvertOptions {
    ConvertOptions { format, ..plain() }
}

#[test]
fn state_dict_comes_back_bit_for_bit() {
    let config = Config::layer_wise(LayerWiseConfig {
        share_input_output_layers: false,
        ..settings()
    })
    .unwrap();
    for dtype in [Dtype::Float32, Dtype::Float16, Dtype::Bfloat16] {
        let (folder, tensors) = with_source(&config, dtype);
        let (file, back) = (folder.join("model.pt"), folder.join("back"));
        let report = convert(&folder.join("source"), &file, &to(Format::CoreNet)).unwrap();
        assert_eq!(report.format, "corenet");
        let identical = report.verification.unwrap().tensors.identical;
        assert_eq!(identical, tensors.len());
        let written = TorchFile::open(&file).unwrap();
        assert_eq!(written.tensors().len(), tensors.len());
        for name in ["layers.1.ffn.proj_1.weight", "classifier.weight"] {
            assert!(written.tensors().contains_key(name), "{name}");
        }
        // One FFN and one attention matrix as stored: CoreNet has the same layout.
        for part in [
            "layers.0.attn.qkv_proj.weight",
            "layers.0.ffn.proj_1.weight",
        ] {
            let stored = &tensors[&format!("transformer.{part}")];
            assert_eq!(written.read(part).unwrap(), stored.bytes);
        }
        let options = ConvertOptions {
            architecture: Some(config.clone()),
            ..plain()
        };
        convert(&file, &back, &options).unwrap();
        assert_eq!(read(&back), tensors, "{dtype}");
    }
}

#[test]
fn quantised_matrices_are_dequantised() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let quantization = Quantization::new(QuantizationMode::Affine, None, None).unwrap();
    let options = ConvertOptions {
        quantize: Some(Quantize {
            quantization,
            recipe: None,
            layers: Vec::new(),
        }),
        ..plain()
    };
    let packed = folder.join("packed");
    convert(&folder.join("source"), &packed, &options).unwrap();
    let file = folder.join("model.pt");
    let report = convert(&packed, &file, &to(Format::CoreNet)).unwrap();
    assert!(report.verification.unwrap().mean_kl < 1e-6);
    let options = ConvertOptions {
        format: Format::CoreNet,
        ..options
    };
    let message = convert(&folder.join("source"), &folder.join("other.pt"), &options);
    let message = message.unwrap_err().to_string();
    assert!(
        message.starts_with("quantize: CoreNet's formats"),
        "{message}"
    );
}

#[test]
fn a_file_is_replaced_by_request_only() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let (source, file) = (folder.join("source"), folder.join("model.pt"));
    let forced = ConvertOptions {
        force: true,
        ..to(Format::CoreNet)
    };
    fs::write(&file, "mine").unwrap();
    let message = convert(&source, &file, &forced).unwrap_err().to_string();
    assert!(message.contains("no file of PyTorch weights"), "{message}");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    fs::remove_file(&file).unwrap();
    convert(&source, &file, &forced).unwrap();
    let message = convert(&source, &file, &to(Format::CoreNet))
        .unwrap_err()
        .to_string();
    assert!(message.contains("exists"), "{message}");
    convert(&source, &file, &forced).unwrap();
    assert_eq!(folder.names(), ["model.pt", "source"]);
}

#[test]
fn mlx_folder_names_a_released_size() {
    let (folder, _) = with_source(&small(), Dtype::Float32);
    let target = folder.join("mlx");
    let message = convert(&folder.join("source"), &target, &to(Format::CoreNetMlx));
    let message = message.unwrap_err().to_string();
    assert!(
        message.starts_with("format: corenet-mlx names one"),
        "{message}"
    );
    assert!(!target.exists());

    // The smallest size with a small vocabulary.
    let config = Config::layer_wise(LayerWiseConfig {
        vocab_size: 8,
        ..Preset::Size270M.settings()
    })
    .unwrap();
    let source = folder.join("large");
    let tensors = random(&config, Dtype::Bfloat16);
    write_model(&source, &config, &tensors);
    let options = ConvertOptions {
        verify: false,
        ..to(Format::CoreNetMlx)
    };
    convert(&source, &target, &options).unwrap();
    let written = fs::read_to_string(target.join("config.json")).unwrap();
    let written: Value = serde_json::from_str(&written).unwrap();
    let expected = serde_json::json!({
        "model_name": "OpenELM-270M",
        "vocab_size": 8,
        "max_context_length": 2048,
    });
    assert_eq!(written, expected);
    assert!(target.join("weights.safetensors").is_file());
    let back = folder.join("back");
    let options = ConvertOptions {
        verify: false,
        ..plain()
    };
    let report = convert(&target, &back, &options).unwrap();
    assert_eq!(report.source_format, "CoreNet MLX folder");
    assert!(read(&back) == tensors);
}
