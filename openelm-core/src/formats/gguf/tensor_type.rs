//! ggml's types of tensor elements.
//!
//! Quantised types store a row in blocks of 32 (256 for Q6_K) elements with a scale each; the
//! numbers follow `enum ggml_type` in `ggml.h`.

use std::fmt;

/// Largest number of dimensions of a ggml tensor.
pub(super) const MAX_DIMS: usize = 4;

/// The type of a tensor in a GGUF file; only types that this crate reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TensorType {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// 16-bit brain float.
    Bf16,
    /// 4 bits, with a scale per block.
    Q4_0,
    /// 4 bits, with a scale and a minimum per block.
    Q4_1,
    /// 5 bits, with a scale per block.
    Q5_0,
    /// 5 bits, with a scale and a minimum per block.
    Q5_1,
    /// 8 bits, with a scale per block.
    Q8_0,
    /// 6 bits, blocks of 256 with 16 scales and a scale of these.
    Q6K,
}

impl TensorType {
    /// Every type.
    pub const ALL: [Self; 9] = [
        Self::F32,
        Self::F16,
        Self::Bf16,
        Self::Q4_0,
        Self::Q4_1,
        Self::Q5_0,
        Self::Q5_1,
        Self::Q8_0,
        Self::Q6K,
    ];

    /// Elements per block; 1 for types that are not quantised.
    pub fn block_elements(self) -> usize {
        match self {
            Self::F32 | Self::F16 | Self::Bf16 => 1,
            Self::Q4_0 | Self::Q4_1 | Self::Q5_0 | Self::Q5_1 | Self::Q8_0 => 32,
            Self::Q6K => 256,
        }
    }

    /// Bytes per block.
    pub fn block_bytes(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 | Self::Bf16 => 2,
            Self::Q4_0 => 18,
            Self::Q4_1 => 20,
            Self::Q5_0 => 22,
            Self::Q5_1 => 24,
            Self::Q8_0 => 34,
            Self::Q6K => 210,
        }
    }

    /// The number in the file.
    pub(crate) fn id(self) -> u32 {
        match self {
            Self::F32 => 0,
            Self::F16 => 1,
            Self::Q4_0 => 2,
            Self::Q4_1 => 3,
            Self::Q5_0 => 6,
            Self::Q5_1 => 7,
            Self::Q8_0 => 8,
            Self::Q6K => 14,
            Self::Bf16 => 30,
        }
    }

    pub(crate) fn from_id(id: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.id() == id)
    }

    /// Size of a row-major `shape` in bytes; the error is the reason of a refusal.
    pub(crate) fn bytes(self, shape: &[usize]) -> Result<u64, String> {
        let Some(&row) = shape.last() else {
            return Err("it has no dimensions".into());
        };
        if shape.len() > MAX_DIMS {
            let problem = format!(
                "expected at most {} dimensions, found {}",
                MAX_DIMS,
                shape.len()
            );
            return Err(problem);
        }
        if shape.contains(&0) {
            return Err(format!("the shape {shape:?} has no elements"));
        }
        if !row.is_multiple_of(self.block_elements()) {
            return Err(format!(
                "the type {self} needs rows of a multiple of {}, found {row}",
                self.block_elements()
            ));
        }
        let elements = shape
            .iter()
            .try_fold(1u64, |product, &dim| product.checked_mul(dim as u64));
        elements
            .map(|elements| elements / self.block_elements() as u64)
            .and_then(|blocks| blocks.checked_mul(self.block_bytes() as u64))
            .filter(|bytes| *bytes <= i64::MAX as u64)
            .ok_or_else(|| format!("the shape {shape:?} is too large"))
    }
}

impl fmt::Display for TensorType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "F32",
            Self::F16 => "F16",
            Self::Bf16 => "BF16",
            Self::Q4_0 => "Q4_0",
            Self::Q4_1 => "Q4_1",
            Self::Q5_0 => "Q5_0",
            Self::Q5_1 => "Q5_1",
            Self::Q8_0 => "Q8_0",
            Self::Q6K => "Q6_K",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_whole_blocks() {
        assert_eq!(TensorType::F32.bytes(&[3, 5]), Ok(60));
        assert_eq!(TensorType::Bf16.bytes(&[7]), Ok(14));
        assert_eq!(TensorType::Q4_0.bytes(&[2, 64]), Ok(72));
        assert_eq!(TensorType::Q8_0.bytes(&[32]), Ok(34));
        assert_eq!(TensorType::Q6K.bytes(&[2, 512]), Ok(840));
        let problem = |kind: TensorType, shape: &[usize]| kind.bytes(shape).unwrap_err();
        assert_eq!(
            problem(TensorType::Q8_0, &[2, 48]),
            "the type Q8_0 needs rows of a multiple of 32, found 48"
        );
        assert_eq!(problem(TensorType::F16, &[]), "it has no dimensions");
        assert!(problem(TensorType::F16, &[1; 5]).contains("at most 4"));
        assert!(problem(TensorType::F16, &[3, 0]).contains("no elements"));
        assert!(problem(TensorType::F32, &[1 << 40, 1 << 40]).contains("too large"));
        assert!(problem(TensorType::F32, &[1 << 31, 1 << 31]).contains("too large"));
    }

    #[test]
    fn type_numbers_are_unique() {
        for kind in TensorType::ALL {
            assert_eq!(TensorType::from_id(kind.id()), Some(kind));
        }
        assert_eq!(TensorType::from_id(12), None); // Q4_K
    }
}
