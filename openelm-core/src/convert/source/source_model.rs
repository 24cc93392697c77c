//! The source of a conversion: a file or folder with OpenELM weights, with Hugging Face's names.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use mlx_rs::{Array, ops::indexing::TryIndexOp};

use crate::{
    adapter::Adapter,
    config::{Config, corenet_name},
    convert::gguf::{Vocabulary, read_tensor, stored_type},
    error::{Error, Result},
    formats::{
        gguf::{GgufReader, TensorType},
        torch::TorchFile,
    },
    mlx::{Dtype, Matrix, Quantization, QuantizationMap, QuantizedMatrix},
    weights::{Checkpoint, Readers, StoredDtype, mean},
};

/// A model to convert. Holds no weights.
pub(crate) struct SourceModel {
    /// The folder or file.
    pub(crate) path: PathBuf,
    /// Description of the format.
    pub(crate) format: &'static str,
    /// The architecture, without padding rows of the vocabulary.
    pub(crate) config: Config,
    pub(super) quantization: Option<QuantizationMap>,
    pub(super) corenet_names: bool,
    pub(super) shapes: HashMap<String, Vec<usize>>,
    pub(super) files: Files,
    pub(super) readers: Readers,
    /// The adapter to fuse into the weights on reading.
    pub(super) adapter: Option<Adapter>,
    /// Checkpoints whose weights are averaged with this one's.
    pub(super) others: Vec<Self>,
}

pub(super) enum Files {
    Safetensors(Checkpoint),
    Torch(TorchFile),
    Gguf(GgufReader),
}

/// The precision of stored numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precision {
    /// Floating-point.
    Float(Dtype),
    /// Quantised by MLX, with scales of this type.
    Packed(Quantization, Dtype),
    /// Quantised in blocks of llama.cpp.
    Blocks(TensorType),
}

impl SourceModel {
    /// The tokenizer inside the file.
    pub(crate) fn vocabulary(&self) -> Result<Option<Vocabulary>> {
        match &self.files {
            Files::Gguf(reader) => Vocabulary::from_gguf(reader),
            _ => Ok(None),
        }
    }

    /// Size of the weights, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        match &self.files {
            Files::Safetensors(checkpoint) => checkpoint.bytes() as u64,
            Files::Torch(file) => file.tensors().values().map(|t| t.bytes() as u64).sum(),
            Files::Gguf(reader) => reader.tensors().values().map(|t| t.bytes()).sum(),
        }
    }

    /// The number of tensors that can be in progress at once.
    pub(crate) fn readers(&self) -> usize {
        self.readers.count()
    }

    /// The stored name of the tensor.
    pub(crate) fn stored_name(&self, name: &str) -> String {
        stored_name(name, self.corenet_names)
    }

    /// The stored quantisation of the matrix `stem`; `None` if it is not quantised.
    pub(crate) fn packing(&self, stem: &str) -> Option<Quantization> {
        let Files::Safetensors(checkpoint) = &self.files else {
            return None;
        };
        let stored = self.stored_name(stem);
        let packing = self.quantization.as_ref()?.layer(&stored)?;
        checkpoint.is_packed(&stored).then_some(packing)
    }

    /// The quantisation of most matrices, if any is quantised.
    pub(crate) fn default_quantization(&self) -> Option<Quantization> {
        self.quantization
            .as_ref()
            .map(QuantizationMap::default_quantization)
    }

    /// True if an adapter changes the tensor `name`.
    pub(crate) fn adapts(&self, name: &str) -> bool {
        let adapter = self.adapter.as_ref();
        adapter.is_some_and(|adapter| adapter.changes(name))
    }

    /// The precision of the tensor `name`; a mean, and a tensor that an adapter changes, is in f32.
    pub(crate) fn precision(&self, name: &str) -> Precision {
        if self.adapts(name) || !self.others.is_empty() {
            return Precision::Float(Dtype::Float32);
        }
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        if let Some(packing) = self.packing(stem) {
            return Precision::Packed(packing, self.dtype(name));
        }
        match &self.files {
            Files::Gguf(reader) => match stored_type(reader, name) {
                Some(TensorType::F16) => Precision::Float(Dtype::Float16),
                Some(TensorType::Bf16) => Precision::Float(Dtype::Bfloat16),
                None | Some(TensorType::F32) => Precision::Float(Dtype::Float32),
                Some(blocks) => Precision::Blocks(blocks),
            },
            _ => Precision::Float(self.dtype(name)),
        }
    }

    /// The type of the tensor `name`. For a quantised tensor, the type of its scales; these are not
    /// floating-point in the microscaling modes, for which it is the type of most tensors.
    pub(crate) fn dtype(&self, name: &str) -> Dtype {
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
            Files::Gguf(reader) => match stored_type(reader, name) {
                Some(TensorType::F16) => Dtype::Float16,
                Some(TensorType::Bf16) => Dtype::Bfloat16,
                _ => Dtype::Float32,
            },
        }
    }

    /// The tensor `name`, dequantised if needed, of type `dtype`; not evaluated. Each tensor can
    /// be taken once.
    pub(crate) fn dense(&mut self, name: &str, dtype: Dtype) -> Result<Array> {
        self.then(name, dtype, Ok)
    }

    /// The tensor `name` in its [`precision`](Self::precision), in f32 if that is of llama.cpp's
    /// blocks; not evaluated. Each tensor can be taken once.
    pub(crate) fn stored(&mut self, name: &str) -> Result<Matrix> {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        match self.precision(name) {
            Precision::Packed(_, scales) => Ok(Matrix::Quantized(self.packed(stem, scales)?)),
            Precision::Float(dtype) => {
                Ok(Matrix::floating(self.dense(name, dtype)?, Dtype::Float32))
            }
            Precision::Blocks(_) => Ok(Matrix::Dense(self.dense(name, Dtype::Float32)?)),
        }
    }

    /// The matrix `stem`, quantised again; not evaluated.
    pub(crate) fn quantize(
        &mut self,
        stem: &str,
        dtype: Dtype,
        quantization: Quantization,
    ) -> Result<QuantizedMatrix> {
        self.then(&format!("{stem}.weight"), dtype, |matrix| {
            QuantizedMatrix::quantize(&matrix, quantization)
        })
    }

    /// The quantised matrix `stem`, with scales and biases of type `dtype`; not evaluated.
    pub(crate) fn packed(&mut self, stem: &str, dtype: Dtype) -> Result<QuantizedMatrix> {
        let Some(quantization) = self.packing(stem) else {
            return Err(Error::checkpoint(
                &self.path,
                format!("`{stem}` is not quantised"),
            ));
        };
        let stored = self.stored_name(stem);
        let shape = self.shapes.get(&format!("{stem}.weight"));
        let shape = shape.cloned().unwrap_or_default();
        let reader = self.readers.next();
        let packed = reader.packed(&stored, quantization)?;
        reader.compute(|| {
            let mut packed = packed.map(|part| cut(part.clone(), &shape))?;
            if let Some(biases) = packed.biases.take() {
                packed.scales = packed.scales.as_dtype(dtype.mlx())?;
                packed.biases = Some(biases.as_dtype(dtype.mlx())?);
            }
            Ok(packed)
        })
    }

    /// Refuses to average with a checkpoint of other tensors, and quantised ones.
    pub(super) fn check_average(&self, other: &Self) -> Result<()> {
        for model in [self, other] {
            let is_packed = model.quantization.is_some() || matches!(model.files, Files::Gguf(_));
            if is_packed {
                let problem = "expected weights that are not quantised to average, found quantised \
                               ones or a GGUF file";
                return Err(Error::checkpoint(&model.path, problem));
            }
        }
        let different = self
            .shapes
            .iter()
            .find(|(name, shape)| other.shapes.get(*name) != Some(shape));
        if let Some((name, shape)) = different {
            let found = match other.shapes.get(name) {
                Some(found) => format!("{found:?}"),
                None => "no such tensor".into(),
            };
            let first = self.path.display();
            let problem =
                format!("tensor `{name}`: expected shape {shape:?} as in {first}, found {found}");
            return Err(Error::checkpoint(&other.path, problem));
        }
        if self.shapes.len() != other.shapes.len() {
            let problem = format!("it has other tensors than {}", self.path.display());
            return Err(Error::checkpoint(&other.path, problem));
        }
        Ok(())
    }

    /// The mean of the tensor `name` over all checkpoints, f32.
    fn average(&mut self, name: &str) -> Result<Array> {
        let first = self.then_own(name, Dtype::Float32, Ok);
        let others = self.others.iter_mut();
        let others = others.map(|other| other.dense(name, Dtype::Float32));
        mean([first].into_iter().chain(others))
    }

    /// Runs `work` on the tensor `name` of type `dtype`, all on one reader.
    fn then<T>(
        &mut self,
        name: &str,
        dtype: Dtype,
        work: impl FnOnce(Array) -> Result<T>,
    ) -> Result<T> {
        if self.others.is_empty() {
            return self.then_own(name, dtype, work);
        }
        let average = self.average(name)?.as_dtype(dtype.mlx())?;
        self.readers.next().compute(|| work(average))
    }

    fn then_own<T>(
        &mut self,
        name: &str,
        dtype: Dtype,
        work: impl FnOnce(Array) -> Result<T>,
    ) -> Result<T> {
        let stem = name.strip_suffix(".weight").unwrap_or(name);
        let (stored, packing) = (self.stored_name(name), self.packing(stem));
        let stored_stem = self.stored_name(stem);
        let shape = self.shapes.get(name).cloned();
        let shape = shape
            .ok_or_else(|| Error::checkpoint(&self.path, format!("there is no tensor `{name}`")))?;
        let reader = self.readers.next();
        // An adapter is added in f32; the sum is cast.
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
                let from = file
                    .tensors()
                    .get(&stored)
                    .map_or(Dtype::Float32, |tensor| tensor.dtype);
                let mut bytes = file.read(&stored)?;
                // The padding rows of CoreNet's embedding come last.
                bytes.truncate(shape.iter().product::<usize>().saturating_mul(from.size()));
                Held::Bytes(bytes, from)
            }
            Files::Gguf(file) => {
                let data = read_tensor(file, name)?;
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
}

/// A tensor as read from its file.
enum Held {
    Array(Array),
    Bytes(Vec<u8>, Dtype),
}

/// Removes padding rows.
fn cut(array: Array, shape: &[usize]) -> Result<Array> {
    match shape.first() {
        Some(&rows) if array.ndim() > 0 && rows < array.dim(0) as usize => {
            Ok(array.try_index(..rows as i32)?)
        }
        _ => Ok(array),
    }
}

pub(super) fn stored_name(name: &str, corenet: bool) -> String {
    if corenet {
        corenet_name(name)
    } else {
        name.into()
    }
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
        return Err(Error::checkpoint(path, problem));
    };
    let shape: Vec<i32> = shape.iter().map(|&n| n as i32).collect();
    Ok(Array::from_slice(bytes, &[length])
        .view_dtype(dtype.mlx())?
        .reshape(&shape)?)
}
