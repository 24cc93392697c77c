//! The element types of PyTorch's storages.

use crate::mlx::Dtype;

/// Element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Element {
    /// A supported type of weights.
    Weight(Dtype),
    /// Another type: its name and the size of one element in bytes.
    Other(&'static str, usize),
}

impl Element {
    /// The type of a storage class (`FloatStorage`), if it is one of PyTorch's.
    pub(crate) fn of_storage(class: &str) -> Option<Self> {
        Some(match class {
            "FloatStorage" => Self::Weight(Dtype::Float32),
            "HalfStorage" => Self::Weight(Dtype::Float16),
            "BFloat16Storage" => Self::Weight(Dtype::Bfloat16),
            "DoubleStorage" => Self::Other("F64", 8),
            "LongStorage" => Self::Other("I64", 8),
            "IntStorage" => Self::Other("I32", 4),
            "ShortStorage" => Self::Other("I16", 2),
            "CharStorage" => Self::Other("I8", 1),
            "ByteStorage" | "UntypedStorage" | "_UntypedStorage" => Self::Other("U8", 1),
            "BoolStorage" => Self::Other("BOOL", 1),
            "ComplexFloatStorage" => Self::Other("C64", 8),
            "ComplexDoubleStorage" => Self::Other("C128", 16),
            "QInt8Storage" => Self::Other("QINT8", 1),
            "QUInt8Storage" => Self::Other("QUINT8", 1),
            "QInt32Storage" => Self::Other("QINT32", 4),
            "QUInt4x2Storage" => Self::Other("QUINT4X2", 1),
            "QUInt2x4Storage" => Self::Other("QUINT2X4", 1),
            _ => return None,
        })
    }

    /// Size of one element in bytes.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Weight(dtype) => dtype.size(),
            Self::Other(_, size) => size,
        }
    }

    /// The type, if it is a supported type of weights.
    pub(crate) fn dtype(self) -> Option<Dtype> {
        match self {
            Self::Weight(dtype) => Some(dtype),
            Self::Other(..) => None,
        }
    }

    /// The name, for an error message.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Weight(Dtype::Float32) => "F32",
            Self::Weight(Dtype::Float16) => "F16",
            Self::Weight(Dtype::Bfloat16) => "BF16",
            Self::Other(name, _) => name,
        }
    }
}
