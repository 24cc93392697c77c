//! GGUF files for tests, from the writer or assembled from bytes.

use openelm_core::{Config, config::LayerWiseConfig};
use openelm_core::{Result, Tokenizer};
use openelm_core::{
    convert::FileType,
    internal::{GgufWriter, TensorSpec, TensorType, Value, Vocabulary, metadata, tensor_plan},
};
use openelm_testing::Random;

/// Values with the magnitude of weights.
pub(crate) fn random_weights(random: &mut Random, count: usize) -> Vec<f32> {
    let value = |_| random.below(1 << 20) as f32 / (1 << 20) as f32 - 0.5;
    (0..count).map(value).collect()
}

pub(crate) fn spec(name: &str, kind: TensorType, shape: &[usize]) -> TensorSpec {
    TensorSpec {
        name: name.into(),
        kind,
        shape: shape.to_vec(),
    }
}

pub(crate) fn written(
    metadata: &[(String, Value)],
    tensors: &[(TensorSpec, Vec<f32>)],
) -> Result<Vec<u8>> {
    let specs = tensors.iter().map(|(spec, _)| spec.clone()).collect();
    let mut writer = GgufWriter::new(Vec::new(), "new.gguf", metadata, specs)?;
    for (spec, values) in tensors {
        writer.write(&spec.name, values)?;
    }
    writer.finish()
}

/// A file header assembled from the bytes of metadata and tensor entries, following the format's
/// specification.
pub(crate) fn head(version: u32, keys: &[Vec<u8>], tensors: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(version.to_le_bytes());
    bytes.extend((tensors.len() as u64).to_le_bytes());
    bytes.extend((keys.len() as u64).to_le_bytes());
    bytes.extend(keys.concat());
    bytes.extend(tensors.concat());
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes
}

pub(crate) fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}

pub(crate) fn key(name: &str, kind: u32, value: &[u8]) -> Vec<u8> {
    [&text(name), kind.to_le_bytes().as_slice(), value].concat()
}

/// A tensor entry, dimensions innermost first.
pub(crate) fn entry(name: &str, dims: &[u64], kind: u32, offset: u64) -> Vec<u8> {
    let mut bytes = text(name);
    bytes.extend((dims.len() as u32).to_le_bytes());
    dims.iter().for_each(|dim| bytes.extend(dim.to_le_bytes()));
    bytes.extend(kind.to_le_bytes());
    bytes.extend(offset.to_le_bytes());
    bytes
}

/// A model of three unequal layers, with more rows than the tokenizer of `fixtures/tales` has ids.
pub(crate) fn small() -> Config {
    Config::layer_wise(LayerWiseConfig {
        model_dim: 64,
        num_transformer_layers: 3,
        head_dim: 16,
        num_gqa_groups: Some(2),
        ffn_dim_divisor: 32,
        vocab_size: 2050,
        max_context_length: 128,
        rope_max_length: 256,
        ..LayerWiseConfig::default()
    })
    .unwrap()
}

pub(crate) fn tales() -> Tokenizer {
    Tokenizer::from_file(openelm_testing::tales().join("tokenizer.json")).unwrap()
}

/// The bytes of a file with random weights, and the weights by checkpoint name.
pub(crate) fn model_file(config: &Config, kind: FileType) -> (Vec<u8>, Vec<(String, Vec<f32>)>) {
    let mut vocabulary = Vocabulary::of(&tales()).unwrap();
    if vocabulary.tokens.len() > config.vocab_size() {
        vocabulary.tokens.truncate(config.vocab_size());
        vocabulary.merges = None;
    }
    let mut random = Random(7);
    let weights: Vec<(String, Vec<f32>)> = config
        .tensors()
        .into_iter()
        .map(|(name, shape)| (name, random_weights(&mut random, shape.iter().product())))
        .collect();
    let entries = metadata(config, "Small", kind, Some(&vocabulary)).unwrap();
    let plan = tensor_plan(config, kind).unwrap();
    let specs = plan.iter().map(|planned| planned.tensor.clone()).collect();
    let mut writer = GgufWriter::new(Vec::new(), "new.gguf", &entries, specs).unwrap();
    for planned in &plan {
        let (_, whole) = weights
            .iter()
            .find(|(name, _)| *name == planned.source)
            .unwrap();
        let part = planned.part_of(whole).unwrap();
        writer.write(&planned.tensor.name, part).unwrap();
    }
    (writer.finish().unwrap(), weights)
}
