//! A tensor of the source and the result, as stored, and its comparison.

use mlx_rs::Array;

use super::{
    stored_numbers::{Numbers, StoredNumbers, slice},
    tensor_difference::{Bound, Difference},
};
use crate::{
    convert::source::{Precision, SourceModel},
    error::Result,
    formats::gguf,
    mlx::{Device, Dtype, Matrix, Quantization, QuantizedMatrix},
};

/// A tensor of both models.
pub(super) struct TensorPair {
    pub(super) name: String,
    pub(super) bound: Bound,
    pub(super) source: Matrix,
    pub(super) result: Matrix,
    /// The expected result, if the source's matrix was quantised.
    expected: Expected,
}

enum Expected {
    /// As the bound says.
    Bound,
    /// The source's matrix, quantised in this type: quantisation is deterministic.
    Packed(Quantization, Dtype),
    /// The source's matrix in llama.cpp's blocks.
    Blocks(gguf::TensorType),
}

impl TensorPair {
    /// Reads the tensor `name` of both models. A matrix was quantised in type `dtype` or, without
    /// one, in the source's.
    pub(super) fn read(
        name: String,
        source: &mut SourceModel,
        result: &mut SourceModel,
        dtype: Option<Dtype>,
    ) -> Result<Self> {
        let bound = Bound::of(source.precision(&name), result.precision(&name));
        let (one, other) = (source.stored(&name)?, result.stored(&name)?);
        let expected = match result.precision(&name) {
            _ if bound != Bound::Finite => Expected::Bound,
            Precision::Packed(packing, _) => {
                let stem = name.strip_suffix(".weight").unwrap_or(&name);
                if source.packing(stem) == Some(packing) && !source.adapts(&name) {
                    // The quantised numbers are kept, and the scales are cast.
                    Expected::Bound
                } else {
                    Expected::Packed(packing, dtype.unwrap_or_else(|| source.dtype(&name)))
                }
            }
            Precision::Blocks(kind) => Expected::Blocks(kind),
            Precision::Float(_) => Expected::Bound,
        };
        Ok(Self {
            name,
            bound,
            source: one,
            result: other,
            expected,
        })
    }

    /// The difference of the tensors. The error is the reason of a refusal.
    pub(super) fn compare(&self) -> Result<Result<Difference, String>> {
        let (source, result) = (
            StoredNumbers::of(&self.source)?,
            StoredNumbers::of(&self.result)?,
        );
        let (source, result) = (source.numbers()?, result.numbers()?);
        if source.len() != result.len() {
            let problem = format!("expected {} numbers, found {}", source.len(), result.len());
            return Ok(Err(problem));
        }
        // MLX's numbers on a GPU have other roundings.
        let from = match self.expected {
            Expected::Packed(_, dtype) if Device::current()? == Device::Cpu => Some(dtype),
            _ => None,
        };
        let difference = Difference::between(source, result, self.bound, from);
        let quantized = if difference.is_quantized {
            Ok(None)
        } else {
            self.quantized_difference(result)?
        };
        let problem = match (quantized, difference.outside) {
            (Err(problem), _) => problem,
            (Ok(Some((expected, found))), _) => {
                format!("expected {expected:e} after quantisation, found {found:e}")
            }
            (Ok(None), None) => return Ok(Ok(difference)),
            (Ok(None), Some((expected, found))) => {
                let what = match self.bound {
                    Bound::Exact => "expected".to_owned(),
                    Bound::Rounded(dtype) => format!("expected, to one rounding to {dtype},"),
                    Bound::Finite => "from".to_owned(),
                };
                format!("{what} {expected:e}, found {found:e}")
            }
        };
        Ok(Err(problem))
    }

    /// The first number of `result` that differs from the source's quantised by MLX, or in blocks,
    /// and the expected one.
    fn quantized_difference(
        &self,
        result: Numbers<'_>,
    ) -> Result<Result<Option<(f32, f32)>, String>> {
        let outside = |expected: Numbers<'_>| {
            Difference::between(expected, result, Bound::Exact, None).outside
        };
        match &self.expected {
            Expected::Bound => Ok(Ok(None)),
            Expected::Packed(packing, dtype) => {
                let values = values(&self.source, *dtype)?;
                let expected = QuantizedMatrix::quantize(&values, *packing)?;
                let expected = StoredNumbers::of(&Matrix::Quantized(expected))?;
                Ok(Ok(outside(expected.numbers()?)))
            }
            Expected::Blocks(kind) => {
                let source = self.source.float32()?.contiguous()?;
                let expected = gguf::rounded(*kind, slice(&source)?);
                Ok(expected.map(|expected| outside(Numbers::Float32(&expected))))
            }
        }
    }
}

/// The values of a matrix in type `dtype`; not evaluated if they are stored.
fn values(matrix: &Matrix, dtype: Dtype) -> Result<Array> {
    Ok(match matrix {
        Matrix::Dense(values) | Matrix::Stored(values) => values.as_dtype(dtype.mlx())?,
        Matrix::Quantized(packed) => packed.clone().expand(dtype)?,
    })
}
