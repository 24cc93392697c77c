//! One safetensors file of named arrays, written atomically: adapters and training state.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use mlx_rs::{Array, Dtype as MlxDtype};
use safetensors::tensor::Metadata;

use super::{
    checkpoint::Checkpoint,
    parallel_reader::Readers,
    safetensors_writer::{NewTensor, SafetensorsWriter},
    stored_tensor::StoredDtype,
};
use crate::{
    error::{Error, Result},
    files::write_beside,
    mlx::Dtype,
};

/// Named arrays, in the order of their names.
pub(crate) type Tensors = BTreeMap<String, Array>;

/// A named array that is made when it is written.
pub(crate) struct PendingTensor<'a> {
    pub(crate) name: String,
    pub(crate) shape: Vec<i32>,
    pub(crate) dtype: MlxDtype,
    pub(crate) make: Box<dyn Fn() -> Result<Array> + 'a>,
}

impl<'a> PendingTensor<'a> {
    /// The existing array `array`.
    pub(crate) fn new(name: impl Into<String>, array: &'a Array) -> Self {
        Self {
            name: name.into(),
            shape: array.shape().to_vec(),
            dtype: array.dtype(),
            make: Box::new(|| Ok(array.clone())),
        }
    }
}

/// Writes `tensors` to a file beside `path` and renames it. `metadata` is the key and text of the
/// file's only metadata entry.
///
/// # Errors
/// [`Error::Io`] if the disk is full or the file cannot be written; an existing file stays.
pub(crate) fn save<'a>(
    path: &Path,
    tensors: impl IntoIterator<Item = (&'a String, &'a Array)>,
    metadata: (&str, &str),
) -> Result<()> {
    let tensors = tensors.into_iter();
    let pending = tensors.map(|(name, array)| PendingTensor::new(name, array));
    save_pending(path, &pending.collect::<Vec<_>>(), metadata)
}

/// Like [`save`], of tensors that are made one after the other, in their order.
///
/// # Errors
/// As [`save`], and those of the tensors.
pub(crate) fn save_pending(
    path: &Path,
    tensors: &[PendingTensor<'_>],
    metadata: (&str, &str),
) -> Result<()> {
    let described = tensors.iter().map(|tensor| described(path, tensor));
    let described = described.collect::<Result<Vec<_>>>()?;
    write_beside(path, |partial| {
        let all: Vec<&NewTensor> = described.iter().collect();
        let mut writer = SafetensorsWriter::create(path, partial, &all, metadata)?;
        for (described, tensor) in described.iter().zip(tensors) {
            writer.write(described, &(tensor.make)()?)?;
        }
        writer.finish()
    })
}

/// Reads a file's arrays in their stored types.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if the file is malformed.
pub(crate) fn load(path: &Path) -> Result<Tensors> {
    let checkpoint = Checkpoint::open_file(path)?;
    let mut readers = Readers::open(&checkpoint)?;
    let names = checkpoint.tensors().keys();
    names
        .map(|name| Ok((name.clone(), readers.next().take(name)?)))
        .collect()
}

/// The metadata text of a file under `key`.
///
/// # Errors
/// [`Error::Io`], or [`Error::Checkpoint`] if there is no such entry.
pub(crate) fn metadata(path: &Path, key: &str) -> Result<String> {
    let malformed = |problem: String| Error::checkpoint(path, problem);
    // Checks the header's length, which the code below relies on.
    Checkpoint::open_file(path)?;
    let mut file = File::open(path).map_err(Error::io(path))?;
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(Error::io(path))?;
    let mut header = Vec::new();
    file.take(u64::from_le_bytes(size))
        .read_to_end(&mut header)
        .map_err(Error::io(path))?;
    let header: Metadata =
        serde_json::from_slice(&header).map_err(|error| malformed(error.to_string()))?;
    let found = header.metadata().as_ref().and_then(|all| all.get(key));
    found
        .cloned()
        .ok_or_else(|| malformed(format!("its metadata has no `{key}`")))
}

/// Name, type and shape of a tensor. Errors name `path`.
fn described(path: &Path, tensor: &PendingTensor<'_>) -> Result<NewTensor> {
    let name = &tensor.name;
    let dtype = match tensor.dtype {
        MlxDtype::Float32 => StoredDtype::Float(Dtype::Float32),
        MlxDtype::Float16 => StoredDtype::Float(Dtype::Float16),
        MlxDtype::Bfloat16 => StoredDtype::Float(Dtype::Bfloat16),
        MlxDtype::Uint32 => StoredDtype::Uint32,
        MlxDtype::Uint8 => StoredDtype::Uint8,
        other => {
            return Err(Error::TensorDtype {
                path: path.to_path_buf(),
                name: name.clone(),
                found: format!("{other:?}"),
            });
        }
    };
    Ok(NewTensor {
        name: name.clone(),
        dtype,
        shape: tensor.shape.iter().map(|&n| n as usize).collect(),
    })
}

/// Refuses tensors of a type that is not floating-point; errors name `path`.
pub(crate) fn require_float(path: &Path, tensors: &Tensors) -> Result<()> {
    let Some((name, array)) = tensors.iter().find(|(_, array)| !is_float(array)) else {
        return Ok(());
    };
    Err(Error::TensorDtype {
        path: path.to_path_buf(),
        name: name.clone(),
        found: format!("{:?}", array.dtype()),
    })
}

fn is_float(array: &Array) -> bool {
    matches!(
        array.dtype(),
        MlxDtype::Float32 | MlxDtype::Float16 | MlxDtype::Bfloat16
    )
}
