//! Reader of a GGUF file: the header at once, the tensors one at a time.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{BufReader, Read, Seek, SeekFrom},
    path::{Path, PathBuf},
};

use half::{bf16, f16};

use super::{
    dequantize::dequantize,
    header::{Header, MAGIC},
    tensor_info::TensorInfo,
    tensor_type::TensorType,
    value::Value,
};
use crate::{
    error::{Error, Result},
    mlx::Dtype,
};

/// A GGUF file with a checked header.
#[derive(Debug)]
pub struct GgufReader {
    path: PathBuf,
    file: File,
    header: Header,
}

/// The elements of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorData {
    /// Type of the elements: as in the file, or [`Dtype::Float32`] if the file's is quantised.
    pub dtype: Dtype,
    /// The bytes, little-endian, the last dimension innermost.
    pub bytes: Vec<u8>,
}

impl GgufReader {
    /// Reads and checks the header, not the tensors' data.
    ///
    /// # Errors
    ///
    /// [`Error::Io`] if the file cannot be read; [`Error::Checkpoint`] if it is not GGUF, of
    /// another version, malformed, truncated or holds a tensor of a type that is not supported.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let file = File::open(path).map_err(Error::io(path))?;
        let length = file.metadata().map_err(Error::io(path))?.len();
        let header = Header::read(BufReader::new(&file), length, path)?;
        Ok(Self {
            path: path.to_path_buf(),
            file,
            header,
        })
    }

    /// True if the file begins with the magic number of GGUF.
    pub(crate) fn recognizes(path: &Path) -> Result<bool> {
        let file = File::open(path).map_err(Error::io(path))?;
        let mut start = Vec::new();
        let read = file.take(MAGIC.len() as u64).read_to_end(&mut start);
        read.map_err(Error::io(path))?;
        Ok(start == MAGIC)
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Version of the format: 2 or 3.
    pub fn version(&self) -> u32 {
        self.header.version
    }

    /// The metadata by key.
    pub fn metadata(&self) -> &BTreeMap<String, Value> {
        &self.header.metadata
    }

    /// The tensors by name.
    pub fn tensors(&self) -> &BTreeMap<String, TensorInfo> {
        &self.header.tensors
    }

    /// Reads a tensor: F32, F16 and BF16 unchanged, other types dequantised to 32-bit floats.
    ///
    /// # Errors
    ///
    /// [`Error::Checkpoint`] if there is no such tensor, [`Error::Io`] if it cannot be read.
    pub fn read(&mut self, name: &str) -> Result<TensorData> {
        let Some(info) = self.header.tensors.get(name) else {
            return Err(self.malformed(format!("there is no tensor `{name}`")));
        };
        let place = SeekFrom::Start(self.header.data + info.offset);
        self.file.seek(place).map_err(Error::io(&self.path))?;
        let mut bytes = Vec::new();
        let read = (&self.file).take(info.bytes).read_to_end(&mut bytes);
        if read.map_err(Error::io(&self.path))? as u64 != info.bytes {
            return Err(self.malformed(format!("truncated within tensor `{name}`")));
        }
        let dtype = match info.kind {
            TensorType::F16 => Dtype::Float16,
            TensorType::Bf16 => Dtype::Bfloat16,
            TensorType::F32 => Dtype::Float32,
            quantised => {
                bytes = dequantize(quantised, &bytes);
                Dtype::Float32
            }
        };
        Ok(TensorData { dtype, bytes })
    }

    pub(crate) fn malformed(&self, problem: impl Into<String>) -> Error {
        Error::checkpoint(&self.path, problem)
    }
}

impl TensorData {
    /// The elements as 32-bit floats, which is exact.
    pub fn to_f32(&self) -> Vec<f32> {
        let (pairs, _) = self.bytes.as_chunks::<2>();
        match self.dtype {
            Dtype::Float32 => {
                let (fours, _) = self.bytes.as_chunks::<4>();
                fours.iter().map(|four| f32::from_le_bytes(*four)).collect()
            }
            Dtype::Float16 => pairs
                .iter()
                .map(|pair| f16::from_le_bytes(*pair).to_f32())
                .collect(),
            Dtype::Bfloat16 => pairs
                .iter()
                .map(|pair| bf16::from_le_bytes(*pair).to_f32())
                .collect(),
        }
    }
}
