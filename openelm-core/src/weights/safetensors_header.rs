//! Headers of safetensors files, and the index of a sharded checkpoint.

use std::{collections::BTreeMap, fs::File, io::Read, path::Path};

use safetensors::tensor::{Dtype as FileDtype, Metadata, TensorInfo};
use serde::Deserialize;
use serde_json::Value;

use super::stored_tensor::{StoredDtype, StoredTensor};
use crate::{
    error::{Error, Result},
    json,
    mlx::Dtype,
    text_file,
};

/// Largest header in bytes, as in the safetensors library.
const MAX_HEADER: u64 = 100_000_000;

/// The tensors of one file, read from its header.
pub(super) fn read_header(path: &Path) -> Result<Vec<(String, StoredTensor)>> {
    let malformed = |problem: String| Error::checkpoint(path, problem);
    let mut file = File::open(path).map_err(Error::io(path))?;
    let length = file.metadata().map_err(Error::io(path))?.len();
    if length < 8 {
        return Err(malformed(format!(
            "not a safetensors file: {length} bytes long"
        )));
    }
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(Error::io(path))?;
    if size == *text_file::LFS_POINTER {
        return Err(malformed(text_file::LFS_PROBLEM.into()));
    }
    let size = u64::from_le_bytes(size);
    if size > MAX_HEADER || size > length - 8 {
        return Err(malformed(format!(
            "the header claims {size} bytes; the file has {} after the length field",
            length - 8
        )));
    }
    let mut header = Vec::new();
    file.take(size)
        .read_to_end(&mut header)
        .map_err(Error::io(path))?;
    let metadata: Metadata = serde_json::from_slice(&header).map_err(|error| {
        let problem = misdescribed(&header).unwrap_or_else(|| error.to_string());
        malformed(format!("the safetensors header is malformed: {problem}"))
    })?;
    let (data, found) = (metadata.data_len() as u64, length - 8 - size);
    if data != found {
        return Err(malformed(format!(
            "truncated or damaged: the header describes {data} bytes of tensors, found {found}"
        )));
    }

    let mut tensors = Vec::new();
    for (name, info) in metadata.tensors() {
        let dtype = match info.dtype {
            FileDtype::F32 => StoredDtype::Float(Dtype::Float32),
            FileDtype::F16 => StoredDtype::Float(Dtype::Float16),
            FileDtype::BF16 => StoredDtype::Float(Dtype::Bfloat16),
            FileDtype::U32 => StoredDtype::Uint32,
            FileDtype::U8 => StoredDtype::Uint8,
            other => {
                return Err(Error::TensorDtype {
                    path: path.to_path_buf(),
                    name,
                    found: format!("{other:?}"),
                });
            }
        };
        let tensor = StoredTensor {
            file: path.to_path_buf(),
            dtype,
            shape: info.shape.clone(),
            offset: 8 + size + info.data_offsets.0 as u64,
        };
        tensors.push((name, tensor));
    }
    Ok(tensors)
}

/// The first tensor of a refused header whose own description is wrong, with the problem: the
/// library's message does not name the tensor.
fn misdescribed(header: &[u8]) -> Option<String> {
    let entries: BTreeMap<String, Value> = serde_json::from_slice(header).ok()?;
    let mut tensors = entries.iter().filter(|(name, _)| *name != "__metadata__");
    tensors.find_map(|(name, entry)| {
        let info = match TensorInfo::deserialize(entry) {
            Ok(info) => info,
            Err(error) => return Some(format!("tensor `{name}`: {error}")),
        };
        let TensorInfo {
            dtype,
            shape,
            data_offsets: (start, end),
        } = info;
        let bits = shape
            .iter()
            .try_fold(dtype.bitsize(), |bits, &n| bits.checked_mul(n));
        let span = end.checked_sub(start).and_then(|n| n.checked_mul(8));
        (bits.is_none() || bits != span).then(|| {
            format!("tensor `{name}`: {dtype:?} of shape {shape:?} at bytes {start} to {end}")
        })
    })
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// Tensor name to file name; each file is a plain name in the index's folder.
pub(super) fn read_index(path: &Path) -> Result<BTreeMap<String, String>> {
    let malformed = |problem: String| Error::checkpoint(path, problem);
    let text = text_file::read(path, MAX_HEADER, malformed)?;
    let index: Index = json::parse(&text).map_err(|error| malformed(error.to_string()))?;
    if index.weight_map.is_empty() {
        return Err(malformed("`weight_map` is empty".into()));
    }
    for (name, file) in &index.weight_map {
        if Path::new(file).file_name() != Some(file.as_ref()) {
            return Err(malformed(format!(
                "tensor `{name}` is outside the folder: {file:?}"
            )));
        }
    }
    Ok(index.weight_map)
}

/// Checks that the index assigns the tensor `name` to `file`, which holds it.
pub(super) fn check_listed(
    index: &Path,
    listed: &BTreeMap<String, String>,
    name: &str,
    file: &Path,
) -> Result<()> {
    let problem = match listed.get(name) {
        Some(shard) if file.file_name() == Some(shard.as_ref()) => return Ok(()),
        Some(shard) => format!(
            "tensor `{name}` is here; {} puts it in {shard}",
            index.display()
        ),
        None => format!("tensor `{name}` is not listed in {}", index.display()),
    };
    Err(Error::checkpoint(file, problem))
}
