//! An entry of a GGUF file's table of tensors.

use super::tensor_type::TensorType;

/// A tensor in a GGUF file: type, shape and offset.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Type of the elements.
    pub kind: TensorType,
    /// Shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Offset in the data, in bytes.
    pub(crate) offset: u64,
    /// Size in the file, in bytes.
    pub(crate) bytes: u64,
}

impl TensorInfo {
    /// Size in the file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
