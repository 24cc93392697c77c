//! Floating-point types of storage and computation.

use std::{fmt, str::FromStr};

use crate::error::{Error, Result};

/// A floating-point type of weights and activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32-bit IEEE float.
    Float32,
    /// 16-bit IEEE float: largest value 65,504.
    Float16,
    /// 16-bit brain float: range of `Float32`, 8 bits of precision.
    Bfloat16,
}

impl Dtype {
    /// Size of one element in bytes.
    pub fn size(self) -> usize {
        match self {
            Self::Float32 => 4,
            Self::Float16 | Self::Bfloat16 => 2,
        }
    }

    pub(crate) fn mlx(self) -> mlx_rs::Dtype {
        match self {
            Self::Float32 => mlx_rs::Dtype::Float32,
            Self::Float16 => mlx_rs::Dtype::Float16,
            Self::Bfloat16 => mlx_rs::Dtype::Bfloat16,
        }
    }
}

impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Float32 => "float32",
            Self::Float16 => "float16",
            Self::Bfloat16 => "bfloat16",
        })
    }
}

impl FromStr for Dtype {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        match name.to_ascii_lowercase().as_str() {
            "float32" | "f32" | "fp32" => Ok(Self::Float32),
            "float16" | "f16" | "fp16" => Ok(Self::Float16),
            "bfloat16" | "bf16" => Ok(Self::Bfloat16),
            _ => Err(Error::Dtype {
                dtype: name.into(),
                problem: "expected float32, float16 or bfloat16".into(),
            }),
        }
    }
}
