//! Conversion uses the memory of a few tensors, and verification no more than that: it reads tensors
//! as they are stored, which are mapped on a CPU. Neither uses the memory of the whole model. In its own process, because MLX
//! counts memory per process.

#![allow(clippy::panic, clippy::unwrap_used, reason = "tests may panic")]

use std::{fs, thread};

use openelm_core::{
    CancelHandle, Config, Dtype,
    config::{LayerWiseConfig, Multipliers},
    convert::{self, ConvertOptions, FileType, Format, Quantize, TokenizerChoice},
    memory,
    quantization::{Quantization, QuantizationMode},
};
use openelm_testing::{TempDir, write_weights};

/// 20 equal layers, 13.6 million parameters.
fn config() -> Config {
    let settings = LayerWiseConfig {
        model_dim: 256,
        num_transformer_layers: 20,
        qkv_multipliers: Multipliers::Uniform(1.0),
        ffn_multipliers: Multipliers::Uniform(2.0),
        num_gqa_groups: Some(1),
        vocab_size: 2048,
        ..LayerWiseConfig::default()
    };
    Config::layer_wise(settings).unwrap()
}

#[test]
fn conversion_needs_memory_of_a_few_tensors() {
    const MIB: usize = 1 << 20;
    let folder = TempDir::new();
    let config = config();
    let source = folder.join("source");
    fs::create_dir(&source).unwrap();
    // 2^-5, -2^-6, 2^-7: small enough for 20 layers.
    let pattern = [0x00, 0x28, 0x00, 0xa4, 0x00, 0x20];
    write_weights(&source, &config.to_json(), &config.tensors(), &pattern);
    let whole = 2 * config.parameter_count() as usize;
    let largest = 2048 * 256;
    assert_eq!(whole, 27_289_088);

    // One tensor per reader is in progress, in its stored dtype and in its output dtype or f32.
    let readers = thread::available_parallelism().map_or(1, |n| n.get().min(4));
    let writing = readers * (2 + 4) * largest + MIB;
    assert!(2 * writing < whole);

    let quantization = Quantization::new(QuantizationMode::Affine, None, None).unwrap();
    let plain = || ConvertOptions {
        tokenizer: TokenizerChoice::Without,
        verify: false,
        ..ConvertOptions::default()
    };
    let cast = ConvertOptions {
        dtype: Some(Dtype::Float32),
        ..plain()
    };
    let packed = ConvertOptions {
        quantize: Some(Quantize::uniform(quantization)),
        ..plain()
    };
    let gguf = ConvertOptions {
        format: Format::Gguf(FileType::F16),
        ..plain()
    };
    for (what, options, verify) in [
        ("plain", plain(), true),
        ("plain", plain(), false),
        ("cast", cast, false),
        ("packed", packed.clone(), true),
        ("packed", packed, false),
        ("gguf", gguf, false),
    ] {
        let options = ConvertOptions {
            verify,
            force: true,
            ..options
        };
        assert!(memory::active_bytes().unwrap() < MIB);
        mlx_rs::memory::reset_peak_memory().unwrap();
        convert::convert(
            folder.join("source"),
            folder.join(format!("{what}-target")),
            &options,
            &CancelHandle::default(),
            |_| {},
        )
        .unwrap();
        let peak = memory::peak_bytes().unwrap();
        assert!(
            peak <= writing,
            "{what}, verified {verify}: {peak} of {writing}"
        );
        // At least the largest tensor was allocated; on a CPU, tensors that are not cast are
        // memory-mapped.
        let cast = matches!(what, "cast" | "gguf");
        assert!(!cast || peak >= 2 * largest, "{what}: {peak}");
    }
}
