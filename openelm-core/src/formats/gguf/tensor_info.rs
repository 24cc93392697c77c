//! An entry of the table of tensors in a GGUF file.

use super::tensor_type::TensorType;

/// A tensor in a GGUF file: its type, shape and place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// The type of its elements.
    pub kind: TensorType,
    /// Its shape, outermost dimension first.
    pub shape: Vec<usize>,
    /// Its offset in the data, in bytes.
    pub(crate) offset: u64,
    /// Its size in the file.
    pub(crate) bytes: u64,
}

impl TensorInfo {
    /// Size in the file, in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}
