//! Converting needs the memory of a few tensors, and comparing the result with its source that of
//! a layer and the embedding, twice; neither that of the model. A process of its own, as MLX
//! counts for the whole process.

#![allow(
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may stop at the first surprise"
)]

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
    let layer: usize = config
        .tensors()
        .iter()
        .filter(|(name, _)| name.starts_with("transformer.layers.7."))
        .map(|(_, shape)| shape.iter().product::<usize>())
        .sum();
    let largest = 2048 * 256;
    assert_eq!((layer, largest), (656_000, 524_288));
    assert_eq!(whole, 27_289_088);

    // As many tensors as there are readers are under way: each as it is stored, and as it is
    // written or in f32.
    let readers = thread::available_parallelism().map_or(1, |n| n.get().min(4));
    let writing = readers * (2 + 4) * largest + MIB;
    // In f32, two embeddings and a layer twice. The activations and logits of 64 positions are
    // next to nothing.
    let verifying = 2 * 4 * (largest + layer) + MIB;
    assert!(2 * writing < whole && 2 * verifying < whole);

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
            folder.join("target"),
            &options,
            &CancelHandle::default(),
            |_| {},
        )
        .unwrap();
        let peak = memory::peak_bytes().unwrap();
        let most = if verify {
            writing.max(verifying)
        } else {
            writing
        };
        assert!(peak <= most, "{what}, verified {verify}: {peak} of {most}");
        // The largest tensor at least was there; on a CPU what is read and not cast is mapped.
        let cast = matches!(what, "cast" | "gguf");
        assert!(!cast || peak >= 2 * largest, "{what}: {peak}");
    }
}
