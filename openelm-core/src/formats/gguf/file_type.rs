//! The type of most weights of a GGUF file.

use std::{fmt, str::FromStr};

use super::tensor_type::TensorType;
use crate::error::{Error, Result};

/// The type of the weights of a file to write. Norms are always F32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FileType {
    /// 32-bit IEEE floats.
    F32,
    /// 16-bit IEEE floats.
    F16,
    /// 16-bit brain floats.
    Bf16,
    /// 8 bits, and a scale per 32 weights.
    Q8_0,
    /// 4 bits, and a scale per 32 weights; a tied embedding has 8 bits.
    Q4_0,
}

impl FileType {
    /// Every type.
    pub const ALL: [Self; 5] = [Self::F32, Self::F16, Self::Bf16, Self::Q8_0, Self::Q4_0];

    /// The type of most tensors.
    pub fn tensor_type(self) -> TensorType {
        match self {
            Self::F32 => TensorType::F32,
            Self::F16 => TensorType::F16,
            Self::Bf16 => TensorType::Bf16,
            Self::Q8_0 => TensorType::Q8_0,
            Self::Q4_0 => TensorType::Q4_0,
        }
    }

    /// `general.file_type`, the number in llama.cpp's `enum llama_ftype`.
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q8_0 => 7,
            Self::Bf16 => 32,
        }
    }
}

impl fmt::Display for FileType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::F16 => "f16",
            Self::Bf16 => "bf16",
            Self::Q8_0 => "q8_0",
            Self::Q4_0 => "q4_0",
        })
    }
}

impl FromStr for FileType {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let lower = name.to_ascii_lowercase();
        let found = Self::ALL.into_iter().find(|kind| kind.to_string() == lower);
        found.ok_or_else(|| {
            Error::option(
                "gguf_type",
                format!("expected f32, f16, bf16, q8_0 or q4_0, found {name}"),
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_types_have_names() {
        for kind in FileType::ALL {
            assert_eq!(
                kind.to_string().to_uppercase().parse::<FileType>().unwrap(),
                kind
            );
        }
        let message = "q5_0".parse::<FileType>().unwrap_err().to_string();
        assert_eq!(
            message,
            "gguf_type: expected f32, f16, bf16, q8_0 or q4_0, found q5_0"
        );
    }
}
