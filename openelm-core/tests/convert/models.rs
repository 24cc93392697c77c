//! Small models: generating, writing, reading and running them.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    path::Path,
};

use half::{bf16, f16};
use mlx_rs::{Array, Dtype as MlxDtype};
use openelm_core::{
    CancelHandle, Config, Dtype, Model, Result,
    config::{LayerWiseConfig, Multipliers},
    convert::{self, ConvertOptions, ConvertReport, TokenizerChoice},
    internal::{ReadOptions, Weights},
    weights::Checkpoint,
};
use openelm_testing::TempDir;
use safetensors::{Dtype as Stored, SafeTensors, tensor::TensorView};

/// A folder with the model `source` of `config`, and the model's tensors.
pub(crate) fn with_source(config: &Config, dtype: Dtype) -> (TempDir, Tensors) {
    let folder = TempDir::new();
    let tensors = random(config, dtype);
    write_model(&folder.join("source"), config, &tensors);
    (folder, tensors)
}

/// All files and folders below `folder`, with the files' contents.
pub(crate) fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        if path.is_dir() {
            for (inner, bytes) in files(&path) {
                found.insert(format!("{name}/{inner}"), bytes);
            }
            found.insert(name, Vec::new());
        } else {
            found.insert(name, fs::read(&path).unwrap());
        }
    }
    found
}

/// Two layers with one and two heads and FFN widths of 128 and 256: rows of 64, 128 and 256.
pub(crate) fn settings() -> LayerWiseConfig {
    LayerWiseConfig {
        model_dim: 128,
        num_transformer_layers: 2,
        head_dim: 64,
        num_gqa_groups: Some(1),
        ffn_multipliers: Multipliers::Range(0.5, 2.0),
        ffn_dim_divisor: 128,
        vocab_size: 96,
        // Verification uses this number of positions: too few for BLAS to start threads.
        max_context_length: 4,
        ..LayerWiseConfig::default()
    }
}

pub(crate) fn small() -> Config {
    Config::layer_wise(settings()).unwrap()
}

/// A small model for the tokenizer of `fixtures/tales`.
pub(crate) fn talking() -> Config {
    Config::layer_wise(LayerWiseConfig {
        model_dim: 64,
        head_dim: 32,
        ffn_dim_divisor: 32,
        vocab_size: 2050,
        max_context_length: 64,
        ..settings()
    })
    .unwrap()
}

/// A tensor as stored in a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tensor {
    pub(crate) dtype: Stored,
    pub(crate) shape: Vec<usize>,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) type Tensors = BTreeMap<String, Tensor>;

impl Tensor {
    pub(crate) fn of(dtype: Dtype, shape: &[usize], values: &[f32]) -> Self {
        let (stored, bytes) = match dtype {
            Dtype::Float32 => (
                Stored::F32,
                values.iter().flat_map(|x| x.to_le_bytes()).collect(),
            ),
            Dtype::Float16 => (
                Stored::F16,
                values
                    .iter()
                    .flat_map(|&x| f16::from_f32(x).to_le_bytes())
                    .collect(),
            ),
            Dtype::Bfloat16 => (
                Stored::BF16,
                values
                    .iter()
                    .flat_map(|&x| bf16::from_f32(x).to_le_bytes())
                    .collect(),
            ),
        };
        Self {
            dtype: stored,
            shape: shape.to_vec(),
            bytes,
        }
    }

    pub(crate) fn values(&self) -> Vec<f32> {
        let (pairs, fours) = (self.bytes.as_chunks().0, self.bytes.as_chunks().0);
        match self.dtype {
            Stored::F32 => fours.iter().map(|&x| f32::from_le_bytes(x)).collect(),
            Stored::F16 => pairs
                .iter()
                .map(|&x| f16::from_le_bytes(x).to_f32())
                .collect(),
            Stored::BF16 => pairs
                .iter()
                .map(|&x| bf16::from_le_bytes(x).to_f32())
                .collect(),
            other => panic!("{other:?} is no float"),
        }
    }

    /// The same values, rounded by `half` where necessary.
    pub(crate) fn cast(&self, dtype: Dtype) -> Self {
        Self::of(dtype, &self.shape, &self.values())
    }
}

/// Weights of a typical trained magnitude, equal in every run.
pub(crate) fn random(config: &Config, dtype: Dtype) -> Tensors {
    // xorshift64*, <https://arxiv.org/abs/1402.6246>.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut uniform = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        let bits = state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        bits as f32 / (1_u32 << 23) as f32 - 1.0
    };
    let tensors = config.tensors().into_iter();
    tensors
        .map(|(name, shape)| {
            let count = shape.iter().product();
            let mut draw = || match shape.as_slice() {
                [_, width] => uniform() * (3.0 / *width as f32).sqrt(),
                _ => 1.0 + 0.1 * uniform(),
            };
            let values: Vec<f32> = (0..count).map(|_| draw()).collect();
            (name, Tensor::of(dtype, &shape, &values))
        })
        .collect()
}

pub(crate) fn write_model(folder: &Path, config: &Config, tensors: &Tensors) {
    fs::create_dir_all(folder).unwrap();
    fs::write(folder.join("config.json"), config.to_json()).unwrap();
    write_weights(&folder.join("model.safetensors"), tensors);
}

pub(crate) fn write_weights(file: &Path, tensors: &Tensors) {
    let views = tensors.iter().map(|(name, tensor)| {
        let view = TensorView::new(tensor.dtype, tensor.shape.clone(), &tensor.bytes);
        (name, view.unwrap())
    });
    fs::write(file, safetensors::serialize(views, None).unwrap()).unwrap();
}

/// The tensors in a folder's safetensors files.
pub(crate) fn read(folder: &Path) -> Tensors {
    let mut tensors = Tensors::new();
    for (name, bytes) in files(folder) {
        if !name.ends_with(".safetensors") {
            continue;
        }
        for (name, view) in SafeTensors::deserialize(&bytes).unwrap().tensors() {
            let tensor = Tensor {
                dtype: view.dtype(),
                shape: view.shape().to_vec(),
                bytes: view.data().to_vec(),
            };
            assert_eq!(tensors.insert(name, tensor), None);
        }
    }
    tensors
}

/// Options for a conversion without a tokenizer.
pub(crate) fn plain() -> ConvertOptions {
    ConvertOptions {
        tokenizer: TokenizerChoice::Without,
        ..ConvertOptions::default()
    }
}

pub(crate) fn convert(
    source: &Path,
    target: &Path,
    options: &ConvertOptions,
) -> Result<ConvertReport> {
    convert::convert(source, target, options, &CancelHandle::default(), |_| {})
}

/// f32 logits `[L, V]` of some ids.
pub(crate) fn logits(folder: &Path, keep_quantized: bool) -> Vec<f32> {
    logits_after(folder, keep_quantized, &SOME_IDS)
}

/// f32 logits `[L, V]` of `ids`.
pub(crate) fn logits_after(folder: &Path, keep_quantized: bool, ids: &[u32]) -> Vec<f32> {
    let config = Config::load(folder).unwrap();
    let checkpoint = Checkpoint::open(folder).unwrap();
    checkpoint.check(&config).unwrap();
    let options = ReadOptions {
        dtype: Dtype::Float32,
        keep_quantized,
    };
    let weights = Weights::read(&checkpoint, &config, options, &mut |_, _| {}).unwrap();
    run(config, weights, ids)
}

/// Logits of tensors in memory.
pub(crate) fn logits_of(config: &Config, tensors: &Tensors) -> Vec<f32> {
    let array = |tensor: &Tensor| {
        let shape: Vec<i32> = tensor.shape.iter().map(|&n| n as i32).collect();
        Array::from_slice(&tensor.values(), &shape)
    };
    let arrays: HashMap<String, Array> = tensors
        .iter()
        .map(|(name, tensor)| (name.clone(), array(tensor)))
        .collect();
    run(config.clone(), Weights::from_tensors(arrays), &SOME_IDS)
}

const SOME_IDS: [u32; 4] = [1, 5, 17, 90];

fn run(config: Config, weights: Weights, ids: &[u32]) -> Vec<f32> {
    let ids = Array::from_slice(ids, &[1, ids.len() as i32]);
    let model = Model::new(config, weights, Dtype::Float32).unwrap();
    let hidden = model.hidden(&ids, &mut model.cache()).unwrap();
    let logits = model.logits(&hidden).unwrap();
    let logits = logits.as_dtype(MlxDtype::Float32).unwrap();
    logits.to_vec_exact::<f32>().unwrap()
}

/// Largest absolute difference.
#[track_caller]
pub(crate) fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    let pairs = a.iter().zip(b);
    pairs.fold(0.0, |most: f32, (a, b)| {
        let apart = (a - b).abs();
        assert!(apart.is_finite());
        most.max(apart)
    })
}
