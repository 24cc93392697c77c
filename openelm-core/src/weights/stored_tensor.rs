//! A tensor in a safetensors file: its place, type and shape.

use std::path::PathBuf;

use crate::mlx::Dtype;

/// A tensor of a [`Checkpoint`](super::Checkpoint): its place, type and shape.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredTensor {
    /// The file that holds the tensor.
    pub file: PathBuf,
    /// Type in the file.
    pub dtype: StoredDtype,
    /// Shape in the file.
    pub shape: Vec<usize>,
    /// Offset of the data in the file, in bytes.
    pub(crate) offset: u64,
}

/// A storage type of tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StoredDtype {
    /// Floating-point numbers.
    Float(Dtype),
    /// 32-bit words: the numbers of a quantised matrix.
    Uint32,
    /// Bytes: the scales of a quantised matrix in the microscaling modes.
    Uint8,
}

impl StoredTensor {
    /// Size in the file, in bytes.
    pub fn bytes(&self) -> usize {
        self.shape.iter().product::<usize>() * self.dtype.size()
    }

    /// True if the data can be mapped: arrays of wider types need their alignment, and MLX cannot
    /// map empty arrays.
    pub(super) fn is_mappable(&self) -> bool {
        self.offset.is_multiple_of(self.dtype.size() as u64) && self.bytes() > 0
    }
}

impl StoredDtype {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Float(dtype) => dtype.size(),
            Self::Uint32 => 4,
            Self::Uint8 => 1,
        }
    }

    pub(crate) fn mlx(self) -> mlx_rs::Dtype {
        match self {
            Self::Float(dtype) => dtype.mlx(),
            Self::Uint32 => mlx_rs::Dtype::Uint32,
            Self::Uint8 => mlx_rs::Dtype::Uint8,
        }
    }

    /// The name in a safetensors header.
    pub fn name(self) -> &'static str {
        match self {
            Self::Float(Dtype::Float32) => "F32",
            Self::Float(Dtype::Float16) => "F16",
            Self::Float(Dtype::Bfloat16) => "BF16",
            Self::Uint32 => "U32",
            Self::Uint8 => "U8",
        }
    }
}
