//! What is converted: any of the files that hold OpenELM weights, behind Hugging Face's names.
//!
//! CoreNet's names lack the prefix `transformer.`, its head is `classifier`, and its embedding
//! has 32,128 rows, of which the last 128 belong to no token.

use std::{
    collections::{BTreeSet, HashMap},
    path::{Path, PathBuf},
};

use mlx_rs::{Array, ops::indexing::TryIndexOp};

use super::{ConvertOptions, architecture};
use crate::{
    adapter::Adapter,
    checkpoint::{Checkpoint, StoredDtype, model_folder},
    config::Config,
    dtype::Dtype,
    error::{Error, Result},
    gguf::{self, GgufReader, TensorType, Vocabulary},
    packed::PackedMatrix,
    preset::Preset,
    quantization::{Quantization, QuantizationMap},
    readers::Readers,
    torch_file::TorchFile,
};

/// Rows of CoreNet's embedding, and of those the ones that are tokens.
pub(super) const CORENET_VOCAB: usize = 32_128;
pub(super) const VOCAB: usize = 32_000;

/// A model to be converted. Holds no weights.
pub(super) struct Source {
    /// The folder or file.
    pub(super) path: PathBuf,
    /// What it is.
    pub(super) format: &'static str,
    /// The architecture, the vocabulary already cut.
    pub(super) config: Config,
    quantization: Option<QuantizationMap>,
    corenet_names: bool,
    shapes: HashMap<String, Vec<usize>>,
    files: Files,
    readers: Readers,
    /// What is added to the weights as they are read.
    adapter: Option<Adapter>,
}

enum Files {
    Safetensors(Checkpoint),
    Torch(TorchFile),
    Gguf(GgufReader),
}

/// How closely numbers are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Precision {
    /// As floats.
    Float(Dtype),
    /// Packed by MLX, with scales of this type.
    Packed(Quantization, Dtype),
    /// In one of llama.cpp's blocks.
    Blocks(TensorType),
}

impl Source {
    pub(super) fn open(path: &Path, options: &ConvertOptions) -> Result<Self> {
        std::fs::metadata(path).map_err(Error::io(path))?;
        let mut source = if path.is_dir() {
            Self::folder(path, options)?
        } else {
            Self::file(path, options)?
        };
        source.check()?;
        if let Some(adapter) = &options.adapter {
            adapter.check_fusable(&source.config, "adapter".as_ref())?;
            source.adapter = Some(adapter.clone());
        }
        Ok(source)
    }

    fn new(path: &Path, format: &'static str, config: Config, files: Files) -> Result<Self> {
        let readers = match &files {
            Files::Safetensors(checkpoint) => Readers::open(checkpoint)?,
            _ => Readers::without_files(path)?,
        };
        Ok(Self {
            path: path.into(),
            format,
            shapes: config.tensors().into_iter().collect(),
            config,
            quantization: None,
            corenet_names: false,
            files,
            readers,
            adapter: None,
        })
    }

    fn folder(path: &Path, options: &ConvertOptions) -> Result<Self> {
        let weights = path.join("weights.safetensors");
        if weights.is_file() {
            return Self::corenet_mlx(path, Checkpoint::open_file(&weights)?, options);
        }
        let path = model_folder(path)?;
        let config = match &options.architecture {
            Some(config) => config.clone(),
            None => Config::load(&path)?,
        };
        let checkpoint = Checkpoint::open(&path)?;
        checkpoint.check(&config)?;
        let quantization = config.quantization_map()?;
        let format = match quantization {
            Some(_) => "quantised MLX folder",
            None => "Hugging Face folder",
        };
        let source = Self::new(&path, format, config, Files::Safetensors(checkpoint))?;
        Ok(Self {
            quantization,
            ..source
        })
    }

    /// A folder of CoreNet's MLX example: its `config.json` names a preset.
    fn corenet_mlx(path: &Path, checkpoint: Checkpoint, options: &ConvertOptions) -> Result<Self> {
        let file = path.join("config.json");
        let fault = |key: &str, problem: String| Error::Config {
            path: file.clone(),
            key: key.into(),
            problem,
        };
        let text = std::fs::read_to_string(&file).map_err(Error::io(&file))?;
        let json: serde_json::Value = serde_json::from_str(&text)
            .map_err(|error| fault("model_name", format!("not JSON: {error}")))?;
        let quantization = match json.get("quantization") {
            None | Some(serde_json::Value::Null) => None,
            Some(block) => Some(
                QuantizationMap::from_json(block)
                    .map_err(|problem| fault("quantization", problem))?,
            ),
        };
        let named = json.get("model_name").and_then(|name| name.as_str());
        let shape = |name: &str| checkpoint.tensors().get(name).map(|t| t.shape.clone());
        let config = match (&options.architecture, named) {
            (Some(config), _) => config.clone(),
            (None, Some(name)) => {
                let rows = embedding_rows(path, &shape)?;
                architecture::preset_with_rows(name.parse()?, tokens(rows))?
            }
            (None, None) => return Err(fault("model_name", "missing".into())),
        };
        let files = Files::Safetensors(checkpoint);
        let source = Self::new(path, "CoreNet MLX folder", config, files)?;
        Ok(Self {
            quantization,
            corenet_names: true,
            ..source
        })
    }

    fn file(path: &Path, options: &ConvertOptions) -> Result<Self> {
        let named = |ending| {
            let found = path.extension();
            found.is_some_and(|found| found.eq_ignore_ascii_case(ending))
        };
        if named("safetensors") {
            let problem = "name the folder that holds it, with its config.json";
            return Err(malformed(path, problem.into()));
        }
        // A result that is being verified may have any name.
        if named("gguf") || GgufReader::recognizes(path)? {
            let reader = GgufReader::open(path)?;
            let config = match &options.architecture {
                Some(config) => config.clone(),
                None => gguf::config_from_gguf(&reader)?,
            };
            gguf::check_tensors(&reader, &config)?;
            return Self::new(path, "GGUF file", config, Files::Gguf(reader));
        }
        let file = TorchFile::open_with(path, options.ema)?;
        let corenet_names = !file
            .tensors()
            .contains_key("transformer.token_embeddings.weight");
        let shape = |name: &str| {
            let name = stored_name(name, corenet_names);
            file.tensors().get(&name).map(|tensor| tensor.shape.clone())
        };
        let config = match &options.architecture {
            Some(config) => config.clone(),
            None => infer(path, &shape)?,
        };
        let source = Self::new(path, "PyTorch checkpoint", config, Files::Torch(file))?;
        Ok(Self {
            corenet_names,
            ..source
        })
    }

    /// The tokenizer that the file carries in itself.
    pub(super) fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        match &self.files {
            Files::Gguf(reader) => Vocabulary::from_gguf(reader),
            _ => Ok(None),
        }
    }

    /// Size of the weights, in bytes.
    pub(super) fn bytes(&self) -> u64 {
        match &self.files {
            Files::Safetensors(checkpoint) => checkpoint.bytes() as u64,
            Files::Torch(file) => file.tensors().values().map(|t| t.bytes() as u64).sum(),
            Files::Gguf(reader) => reader.tensors().values().map(|t| t.size()).sum(),
        }
    }

    /// How many tensors can be under way at once.
    pub(super) fn readers(&self) -> usize {
        self.readers.count()
    }

    /// The name under which the tensor is stored here.
    pub(super) fn stored_name(&self, name: &str) -> String {
        stored_name(name, self.corenet_names)
    }

    /// How the matrix `stem` is packed here; `None` if it is not.
    pub(super) fn packing(&self, stem: &str) -> Option<Quantization> {
        let Files::Safetensors(checkpoint) = &self.files else {
            return None;
        };
        let stored = self.stored_name(stem);
        let packing = self.quantization.as_ref()?.layer(&stored)?;
        checkpoint.is_packed(&stored).then_some(packing)
    }

    /// The packing of most matrices, if any is packed.
    pub(super) fn default_quantization(&self) -> Option<Quantization> {
        self.quantization
            .as_ref()
            .map(QuantizationMap::default_quantization)
    }

    /// Whether an adapter changes the tensor `name`.
    pub(super) fn adapts(&self, name: &str) -> bool {
        let adapter = self.adapter.as_ref();
        adapter.is_some_and(|adapter| adapter.changes(name))
    }

    /// How closely the tensor `name` is stored; what an adapter changes is in f32.
    pub(super) fn precision(&self, name: &str) -> Precision {
        if self.adapts(name) {
            return Precision::Float(Dtype::Float32);
        }
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        if let Some(packing) = self.packing(stem) {
            return Precision::Packed(packing, self.dtype(name));
        }
        match &self.files {
            Files::Gguf(reader) => match gguf::stored_type(reader, name) {
                Some(TensorType::F16) => Precision::Float(Dtype::Float16),
                Some(TensorType::Bf16) => Precision::Float(Dtype::Bfloat16),
                None | Some(TensorType::F32) => Precision::Float(Dtype::Float32),
                Some(blocks) => Precision::Blocks(blocks),
            },
            _ => Precision::Float(self.dtype(name)),
        }
    }

    /// The type of the tensor `name`; of its scales, if it is packed, which are of no
    /// floating-point type in the microscaling modes: then the type that most tensors have.
    pub(super) fn dtype(&self, name: &str) -> Dtype {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        match &self.files {
            Files::Safetensors(checkpoint) => {
                let packed = self.packing(stem).is_some();
                let name = if packed {
                    format!("{stem}.scales")
                } else {
                    name.to_owned()
                };
                let stored = checkpoint.tensors().get(&self.stored_name(&name));
                match stored.map(|tensor| tensor.dtype) {
                    Some(StoredDtype::Float(dtype)) => dtype,
                    _ => checkpoint.dtype(),
                }
            }
            Files::Torch(file) => {
                let tensor = file.tensors().get(&self.stored_name(name));
                tensor.map_or(Dtype::Float32, |tensor| tensor.dtype)
            }
            Files::Gguf(reader) => match gguf::stored_type(reader, name) {
                Some(TensorType::F16) => Dtype::Float16,
                Some(TensorType::Bf16) => Dtype::Bfloat16,
                _ => Dtype::Float32,
            },
        }
    }

    /// The tensor `name`, expanded if it is packed, of type `dtype`; not evaluated. Each tensor
    /// can be had once.
    pub(super) fn dense(&mut self, name: &str, dtype: Dtype) -> Result<Array> {
        self.then(name, dtype, Ok)
    }

    /// The matrix `stem`, packed anew; not evaluated.
    pub(super) fn quantize(
        &mut self,
        stem: &str,
        dtype: Dtype,
        quantization: Quantization,
    ) -> Result<PackedMatrix> {
        self.then(&format!("{stem}.weight"), dtype, |matrix| {
            PackedMatrix::quantize(&matrix, quantization)
        })
    }

    /// The matrix `stem` as it is packed, scales and biases of type `dtype`; not evaluated.
    pub(super) fn packed(&mut self, stem: &str, dtype: Dtype) -> Result<PackedMatrix> {
        let Some(quantization) = self.packing(stem) else {
            return Err(malformed(&self.path, format!("`{stem}` is not quantised")));
        };
        let stored = self.stored_name(stem);
        let reader = self.readers.next();
        let mut packed = reader.packed(&stored, quantization)?;
        reader.compute(|| {
            if let Some(biases) = packed.biases.take() {
                packed.scales = packed.scales.as_dtype(dtype.mlx())?;
                packed.biases = Some(biases.as_dtype(dtype.mlx())?);
            }
            Ok(packed)
        })
    }

    /// Does `work` with the tensor `name` of type `dtype`, all on one reader.
    fn then<T>(
        &mut self,
        name: &str,
        dtype: Dtype,
        work: impl FnOnce(Array) -> Result<T>,
    ) -> Result<T> {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let (stored, packing) = (self.stored_name(name), self.packing(stem));
        let stored_stem = self.stored_name(stem);
        let shape = self.shapes.get(name).cloned().unwrap_or_default();
        let reader = self.readers.next();
        // An adapter is added in f32, and the sum cast.
        let adapter = self
            .adapter
            .as_ref()
            .filter(|adapter| adapter.changes(name));
        let work = |array: Array| match adapter {
            None => work(array),
            Some(adapter) => {
                let array = adapter.fused(name, array.as_dtype(mlx_rs::Dtype::Float32)?)?;
                work(array.as_dtype(dtype.mlx())?)
            }
        };
        let dtype_read = match adapter {
            None => dtype,
            Some(_) => Dtype::Float32,
        };
        if let Some(packing) = packing {
            let expanded = reader.expand(&stored_stem, packing, dtype_read)?;
            return reader.compute(|| work(cut(expanded, &shape)?));
        }
        let array = match &mut self.files {
            Files::Safetensors(_) => Held::Array(reader.take(&stored)?),
            Files::Torch(file) => {
                let from = file.tensors().get(&stored).map(|tensor| tensor.dtype);
                let from = from.unwrap_or(Dtype::Float32);
                let mut bytes = file.read(&stored)?;
                // The rows of CoreNet's embedding that belong to no token come last.
                bytes.truncate(shape.iter().product::<usize>().saturating_mul(from.size()));
                Held::Bytes(bytes, from)
            }
            Files::Gguf(file) => {
                let data = gguf::read_tensor(file, name)?;
                Held::Bytes(data.bytes, data.dtype)
            }
        };
        let path = &self.path;
        reader.compute(|| {
            let array = match array {
                Held::Array(array) => cut(array, &shape)?,
                Held::Bytes(bytes, from) => from_bytes(path, name, &bytes, from, &shape)?,
            };
            work(if array.dtype() == dtype_read.mlx() {
                array
            } else {
                array.as_dtype(dtype_read.mlx())?
            })
        })
    }

    /// Checks that the tensors are those of the architecture, the embedding's rows aside.
    fn check(&self) -> Result<()> {
        if self.format == "Hugging Face folder" || self.format == "quantised MLX folder" {
            // `Checkpoint::check` has done it.
            return Ok(());
        }
        let stored: HashMap<&String, &[usize]> = match &self.files {
            Files::Safetensors(checkpoint) => checkpoint
                .tensors()
                .iter()
                .map(|(n, t)| (n, t.shape.as_slice()))
                .collect(),
            Files::Torch(file) => file
                .tensors()
                .iter()
                .map(|(n, t)| (n, t.shape.as_slice()))
                .collect(),
            Files::Gguf(_) => return Ok(()),
        };
        let mut known = BTreeSet::new();
        for (name, shape) in self.config.tensors() {
            let stem = name.strip_suffix(".weight").unwrap_or(&name);
            let mut parts = vec![(self.stored_name(&name), shape.clone())];
            if let (Some(packing), &[rows, width]) = (self.packing(stem), shape.as_slice()) {
                let stem = self.stored_name(stem);
                let groups = packing.scales_shape(rows, width).to_vec();
                parts = vec![
                    (
                        format!("{stem}.weight"),
                        packing.packed_shape(rows, width).to_vec(),
                    ),
                    (format!("{stem}.scales"), groups.clone()),
                ];
                if packing.has_biases() {
                    parts.push((format!("{stem}.biases"), groups));
                }
            }
            for (stored_name, expected) in parts {
                let Some(found) = stored.get(&stored_name) else {
                    let path = self.path.clone();
                    return Err(Error::MissingTensor {
                        path,
                        name: stored_name,
                        shape: expected,
                    });
                };
                if !fits(found, &expected) {
                    return Err(Error::TensorShape {
                        path: self.path.clone(),
                        name: stored_name,
                        expected,
                        found: found.to_vec(),
                    });
                }
                known.insert(stored_name);
            }
        }
        match stored.keys().find(|name| !known.contains(**name)) {
            None => Ok(()),
            Some(name) => {
                let path = self.path.clone();
                Err(Error::UnexpectedTensor {
                    path,
                    name: (*name).clone(),
                })
            }
        }
    }
}

/// A tensor as its file gives it.
enum Held {
    Array(Array),
    Bytes(Vec<u8>, Dtype),
}

/// The rows that belong to tokens.
fn cut(array: Array, shape: &[usize]) -> Result<Array> {
    match shape.first() {
        Some(&rows) if array.ndim() > 0 && rows < array.dim(0) as usize => {
            Ok(array.try_index(..rows as i32)?)
        }
        _ => Ok(array),
    }
}

fn stored_name(name: &str, corenet: bool) -> String {
    match (corenet, name.strip_prefix("lm_head")) {
        (false, _) => name.into(),
        (true, Some(rest)) => format!("classifier{rest}"),
        (true, None) => name.strip_prefix("transformer.").unwrap_or(name).into(),
    }
}

/// Equal, or an embedding with CoreNet's rows beyond the last token.
fn fits(found: &[usize], expected: &[usize]) -> bool {
    found == expected || (found == [CORENET_VOCAB, last(found)] && expected == [VOCAB, last(found)])
}

fn last(shape: &[usize]) -> usize {
    shape.last().copied().unwrap_or(0)
}

fn tokens(rows: usize) -> usize {
    if rows == CORENET_VOCAB { VOCAB } else { rows }
}

fn embedding_rows(path: &Path, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<usize> {
    let found = [
        "token_embeddings.weight",
        "transformer.token_embeddings.weight",
    ]
    .iter()
    .find_map(|name| shape(name)?.first().copied());
    found.ok_or_else(|| malformed(path, "tensor `token_embeddings.weight` is missing".into()))
}

/// The released architecture whose shapes these are; `shape` is asked by Hugging Face's names.
fn infer(path: &Path, shape: &dyn Fn(&str) -> Option<Vec<usize>>) -> Result<Config> {
    let rows = embedding_rows(path, shape)?;
    for preset in Preset::ALL {
        let Ok(config) = architecture::preset_with_rows(preset, tokens(rows)) else {
            continue;
        };
        let is_it = |(name, expected): (String, Vec<usize>)| {
            shape(&name).is_some_and(|found| fits(&found, &expected))
        };
        if config.tensors().into_iter().all(is_it) {
            return Ok(config);
        }
    }
    let problem = "its tensors are those of none of OpenELM's four sizes; name the architecture \
                   with --architecture (a size, or a config.json)";
    Err(malformed(path, problem.into()))
}

fn from_bytes(
    path: &Path,
    name: &str,
    bytes: &[u8],
    dtype: Dtype,
    shape: &[usize],
) -> Result<Array> {
    let elements: usize = shape.iter().product();
    let length = i32::try_from(bytes.len()).ok();
    let Some(length) = length.filter(|_| bytes.len() == elements.saturating_mul(dtype.size()))
    else {
        let problem = format!("tensor `{name}`: {} bytes for shape {shape:?}", bytes.len());
        return Err(malformed(path, problem));
    };
    let shape: Vec<i32> = shape.iter().map(|&n| n as i32).collect();
    Ok(Array::from_slice(bytes, &[length])
        .view_dtype(dtype.mlx())?
        .reshape(&shape)?)
}

fn malformed(path: &Path, problem: String) -> Error {
    Error::Checkpoint {
        path: path.into(),
        problem,
    }
}
