//! Writes a safetensors file tensor by tensor.
//!
//! The header comes first in the format, so it is computed from the names, types and shapes; then
//! each tensor's bytes are written at the header's offset. Larger types come first, which aligns
//! every tensor to its type.

use std::{
    collections::HashMap,
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::{Path, PathBuf},
};

use mlx_rs::{Array, Dtype as MlxDtype};
use serde_json::{Map, Value, json};

use super::stored_tensor::StoredDtype;
use crate::error::{Error, Result};

/// A tensor to write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NewTensor {
    pub(crate) name: String,
    pub(crate) dtype: StoredDtype,
    pub(crate) shape: Vec<usize>,
}

impl NewTensor {
    /// Size in the file, in bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.shape.iter().product::<usize>() as u64 * self.dtype.size() as u64
    }
}

/// A safetensors file in progress.
pub(crate) struct SafetensorsWriter {
    /// The path for errors.
    path: PathBuf,
    file: File,
    /// Per name: offset in the file, size.
    places: HashMap<String, (u64, u64)>,
}

impl SafetensorsWriter {
    /// Creates the file at `partial` and writes the header, with one metadata entry. Errors name
    /// `path`, the file's final path.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn create(
        path: &Path,
        partial: &Path,
        tensors: &[&NewTensor],
        metadata: (&str, &str),
    ) -> Result<Self> {
        let mut ordered = tensors.to_vec();
        ordered.sort_by(|a, b| {
            let size = |tensor: &NewTensor| std::cmp::Reverse(tensor.dtype.size());
            (size(a), &a.name).cmp(&(size(b), &b.name))
        });
        let mut header = Map::new();
        header.insert("__metadata__".into(), json!({ metadata.0: metadata.1 }));
        let mut end = 0;
        let mut places = Vec::with_capacity(ordered.len());
        for tensor in ordered {
            let start = end;
            end += tensor.bytes();
            let entry = json!({
                "dtype": tensor.dtype.name(),
                "shape": tensor.shape,
                "data_offsets": [start, end],
            });
            header.insert(tensor.name.clone(), entry);
            places.push((tensor.name.clone(), start, tensor.bytes()));
        }
        let mut header = Value::Object(header).to_string().into_bytes();
        header.resize(header.len().next_multiple_of(8), b' ');
        let data = 8 + header.len() as u64;

        let mut file = File::create(partial).map_err(Error::io(path))?;
        file.write_all(&(header.len() as u64).to_le_bytes())
            .and_then(|()| file.write_all(&header))
            .map_err(Error::io(path))?;
        let places = places.into_iter();
        let places = places.map(|(name, start, bytes)| (name, (data + start, bytes)));
        Ok(Self {
            path: path.to_path_buf(),
            file,
            places: places.collect(),
        })
    }

    /// Writes `tensor` and evaluates it if needed.
    ///
    /// # Errors
    /// [`Error::UnexpectedTensor`] or [`Error::TensorShape`] if it is not a tensor of the header;
    /// [`Error::Io`].
    pub(crate) fn write(&mut self, tensor: &NewTensor, array: &Array) -> Result<()> {
        let Some(&(position, bytes)) = self.places.get(&tensor.name) else {
            return Err(Error::UnexpectedTensor {
                path: self.path.clone(),
                name: tensor.name.clone(),
            });
        };
        if array.dtype() != tensor.dtype.mlx() || array.nbytes() as u64 != bytes {
            return Err(Error::TensorShape {
                path: self.path.clone(),
                name: tensor.name.clone(),
                expected: tensor.shape.clone(),
                found: array.shape().iter().map(|&n| n as usize).collect(),
            });
        }
        let array = array.contiguous()?.view_dtype(MlxDtype::Uint8)?;
        let slice = array.try_as_slice::<u8>().map_err(|error| {
            Error::checkpoint(&self.path, format!("tensor `{}`: {error}", tensor.name))
        })?;
        self.file
            .seek(SeekFrom::Start(position))
            .and_then(|_| self.file.write_all(slice))
            .map_err(Error::io(&self.path))
    }

    /// Flushes the file to the disk.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub(crate) fn finish(self) -> Result<()> {
        self.file.sync_data().map_err(Error::io(self.path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mlx::Dtype;
    use openelm_testing::TempDir;

    fn part(name: &str, dtype: StoredDtype, shape: &[usize]) -> NewTensor {
        NewTensor {
            name: name.into(),
            dtype,
            shape: shape.to_vec(),
        }
    }

    #[test]
    fn tensors_are_aligned_and_read_back() {
        let folder = TempDir::new();
        let parts = [
            part("bytes", StoredDtype::Uint8, &[3]),
            part("words", StoredDtype::Uint32, &[2, 1]),
            part("halves", StoredDtype::Float(Dtype::Bfloat16), &[3]),
        ];
        let all: Vec<&NewTensor> = parts.iter().collect();
        let path = folder.join("a.safetensors");
        let mut writer = SafetensorsWriter::create(&path, &path, &all, ("format", "mlx")).unwrap();
        let halves = Array::from_slice(&[1.0f32, -2.0, 0.5], &[3]);
        let halves = halves.as_dtype(MlxDtype::Bfloat16).unwrap();
        writer.write(&parts[2], &halves).unwrap();
        writer
            .write(&parts[0], &Array::from_slice(&[7u8, 8, 9], &[3]))
            .unwrap();
        writer
            .write(&parts[1], &Array::from_slice(&[1u32, 2], &[2, 1]))
            .unwrap();
        let wrong = writer.write(&parts[1], &halves).unwrap_err().to_string();
        assert!(wrong.contains("`words`"), "{wrong}");
        writer.finish().unwrap();

        let bytes = std::fs::read(&path).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        assert_eq!(file.tensor("bytes").unwrap().data(), [7, 8, 9]);
        assert_eq!(
            file.tensor("words").unwrap().data(),
            [1, 0, 0, 0, 2, 0, 0, 0]
        );
        assert_eq!(
            file.tensor("halves").unwrap().data(),
            [0x80, 0x3f, 0, 0xc0, 0, 0x3f]
        );
        let start = file.tensor("words").unwrap().data().as_ptr() as usize;
        assert_eq!((start - bytes.as_ptr() as usize) % 4, 0);
    }
}
