//! Checkpoints of a tiny model, generated here.

use std::{collections::BTreeMap, path::Path};

use half::{bf16, f16};
use mlx_rs::Array;
use openelm_core::{
    Config, Dtype, Error, Model, Result,
    config::LayerWiseConfig,
    internal::{ReadOptions, Weights},
    one_line,
    weights::{Checkpoint, model_folder},
};
use openelm_testing::{Random, TempDir};
use safetensors::{Dtype as Stored, tensor::TensorView};

pub(crate) const SINGLE: &str = "model.safetensors";
pub(crate) const INDEX: &str = "model.safetensors.index.json";
pub(crate) const EMBEDDINGS: &str = "transformer.token_embeddings.weight";

/// A folder with the tiny model's `config.json`.
pub(crate) fn with_config() -> TempDir {
    let folder = TempDir::new();
    folder.write("config.json", tiny().to_json());
    folder
}

/// Two layers of width 16; 18 tensors, 22 kB in float32.
pub(crate) fn tiny() -> Config {
    let settings = LayerWiseConfig {
        model_dim: 16,
        num_transformer_layers: 2,
        head_dim: 8,
        num_gqa_groups: Some(1),
        ffn_dim_divisor: 8,
        vocab_size: 32,
        max_context_length: 32,
        ..LayerWiseConfig::default()
    };
    Config::layer_wise(settings).unwrap()
}

/// A tensor as stored in a weight file.
#[derive(Clone)]
pub(crate) struct Tensor {
    pub(crate) dtype: Stored,
    pub(crate) shape: Vec<usize>,
    pub(crate) data: Vec<u8>,
}

pub(crate) type Tensors = BTreeMap<String, Tensor>;

/// The tiny model's tensors. All values are multiples of 1/128 up to 1, which all three dtypes
/// represent exactly.
pub(crate) fn tensors(dtype: Stored) -> Tensors {
    let mut random = Random(9);
    let mut tensor = |(name, shape): (String, Vec<usize>)| {
        let values = (0..shape.iter().product()).map(|_| random.below(257) as f32 / 128.0 - 1.0);
        let data = values.flat_map(|value| match dtype {
            Stored::F32 => value.to_le_bytes().to_vec(),
            Stored::F16 => f16::from_f32(value).to_le_bytes().to_vec(),
            Stored::BF16 => bf16::from_f32(value).to_le_bytes().to_vec(),
            other => panic!("{other:?}"),
        });
        let data = data.collect();
        (name, Tensor { dtype, shape, data })
    };
    tiny().tensors().into_iter().map(&mut tensor).collect()
}

pub(crate) fn file(tensors: &Tensors) -> Vec<u8> {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.data);
        (name, view.unwrap())
    });
    safetensors::serialize(views, None).unwrap()
}

/// A weight file with any header.
pub(crate) fn raw(header: impl AsRef<[u8]>, data: &[u8]) -> Vec<u8> {
    let header = header.as_ref();
    [&(header.len() as u64).to_le_bytes()[..], header, data].concat()
}

pub(crate) fn index(map: &BTreeMap<String, String>) -> String {
    serde_json::json!({ "metadata": { "total_size": 1 }, "weight_map": map }).to_string()
}

/// Writes the tensors into three shards with an index. Returns the index's map.
pub(crate) fn shards(folder: &TempDir, tensors: &Tensors) -> BTreeMap<String, String> {
    let mut map = BTreeMap::new();
    for shard in 0..3 {
        let name = format!("model-0000{}-of-00003.safetensors", shard + 1);
        let part: Tensors = tensors
            .iter()
            .enumerate()
            .filter(|(i, _)| i % 3 == shard)
            .map(|(_, (name, tensor))| (name.clone(), tensor.clone()))
            .collect();
        folder.write(&name, file(&part));
        map.extend(part.into_keys().map(|tensor| (tensor, name.clone())));
    }
    folder.write(INDEX, index(&map));
    map
}

pub(crate) fn open(path: &Path) -> Result<(Config, Checkpoint)> {
    let folder = model_folder(path)?;
    let config = Config::load(&folder)?;
    let checkpoint = Checkpoint::open(&folder)?;
    checkpoint.check(&config)?;
    Ok((config, checkpoint))
}

pub(crate) fn model(path: &Path, dtype: Dtype) -> Result<Model> {
    let (config, checkpoint) = open(path)?;
    let weights = Weights::read(
        &checkpoint,
        &config,
        ReadOptions {
            dtype,
            keep_quantized: false,
        },
        &mut |_, _| {},
    )?;
    Model::new(config, weights, dtype)
}

/// Logits of four tokens, 4 × 32.
pub(crate) fn logits(model: &Model) -> Vec<f32> {
    let tokens = Array::from_slice(&[1_u32, 7, 30, 4], &[1, 4]);
    let hidden = model.hidden(&tokens, &mut model.cache()).unwrap();
    let logits = model.logits(&hidden).unwrap();
    assert_eq!(logits.shape(), [1, 4, 32]);
    let logits = logits.as_dtype(mlx_rs::Dtype::Float32).unwrap();
    logits.to_vec_exact::<f32>().unwrap()
}

/// Checks that an error is one line that begins with the invalid file and contains all of `parts`.
#[track_caller]
pub(crate) fn assert_names(error: &Error, file: &Path, parts: &[&str]) {
    let message = error.to_string();
    assert_eq!(message.lines().count(), 1, "{message}");
    let start = one_line(&format!("{}: ", file.display()));
    assert!(message.starts_with(&start), "{start} | {message}");
    for part in parts {
        assert!(message.contains(part), "{part} | {message}");
    }
}

#[track_caller]
pub(crate) fn assert_refused(folder: &Path, file: &str, parts: &[&str]) {
    let error = open(folder).map(drop).unwrap_err();
    assert_names(&error, &folder.join(file), parts);
}

/// Offset of the tensor data.
pub(crate) fn header_end(bytes: &[u8]) -> usize {
    8 + u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize
}
