//! A quantised matrix whose scales and biases are trained.
//!
//! A group is `s · (q - m) + c` with the middle `m` of the integers `q`: in this form the gradients
//! of `s` and `c` are nearly independent. Both are trained in f32 as shares of the matrix's mean
//! scale, so that one learning rate fits all matrices.

use mlx_rs::{
    Array,
    ops::{ones_like, zeros_like},
};

use super::widths::MatrixShape;
use crate::{
    error::Result,
    mlx::{Dtype, QuantizedMatrix, evaluation},
};

/// A matrix whose scales and biases are trained.
pub(super) struct TrainedMatrix {
    pub(super) stem: String,
    packed: QuantizedMatrix,
    dtype: Dtype,
    /// The mean scale.
    unit: f32,
    /// The middle of the integers.
    middle: f32,
    /// The integers minus the middle, f32 `[rows, groups, group_size]`, if they are kept.
    kept: Option<Array>,
}

impl TrainedMatrix {
    /// The matrix and its first parameters.
    pub(super) fn new(shape: &MatrixShape, packed: QuantizedMatrix) -> Result<(Self, [Array; 2])> {
        let float32 = mlx_rs::Dtype::Float32;
        let middle = ((1_u32 << packed.quantization.bits()) - 1) as f32 / 2.0;
        let scales = packed.scales.as_dtype(float32)?;
        let biases = match &packed.biases {
            Some(biases) => biases.as_dtype(float32)?,
            None => zeros_like(&scales)?,
        };
        let unit = scales.abs()?.mean(None)?.try_item_exact::<f32>()?;
        let unit = if unit > 0.0 { unit } else { 1.0 };
        let middles = biases.add(scales.multiply(Array::from_f32(middle))?)?;
        let divisor = Array::from_f32(unit);
        let start = [scales.divide(&divisor)?, middles.divide(&divisor)?];
        evaluation::complete(&start)?;
        let matrix = Self {
            stem: shape.stem.clone(),
            packed,
            dtype: shape.dtype,
            unit,
            middle,
            kept: None,
        };
        Ok((matrix, start))
    }

    /// The integers minus the middle, f32 `[rows, groups, group_size]`.
    fn integers(&self) -> Result<Array> {
        if let Some(kept) = &self.kept {
            return Ok(kept.clone());
        }
        let float32 = mlx_rs::Dtype::Float32;
        let scales = ones_like(&self.packed.scales)?.as_dtype(float32)?;
        let biases = scales.multiply(Array::from_f32(-self.middle))?;
        let shape = [scales.dim(0), scales.dim(1), -1];
        let plain = QuantizedMatrix {
            weight: self.packed.weight.clone(),
            scales,
            biases: Some(biases),
            quantization: self.packed.quantization,
        };
        let integers = plain.expand(Dtype::Float32)?.reshape(&shape)?;
        evaluation::complete([&integers])?;
        Ok(integers)
    }

    /// Keeps the integers between steps.
    pub(super) fn keep(&mut self) -> Result<()> {
        self.kept = Some(self.integers()?);
        Ok(())
    }

    /// The numbers f32 `[rows, width]` for the parameters `s` and `c`, evaluated.
    pub(super) fn weight(&self, s: &Array, c: &Array) -> Result<Array> {
        let unit = Array::from_f32(self.unit);
        let s = s.expand_dims(-1)?.multiply(&unit)?;
        let c = c.expand_dims(-1)?.multiply(unit)?;
        let weight = self.integers()?.multiply(s)?.add(c)?;
        let weight = weight.reshape(&[weight.dim(0), -1])?;
        evaluation::complete([&weight])?;
        Ok(weight)
    }

    /// The gradients of `s` and `c` for the `gradient` `[rows, width]` of the numbers, evaluated.
    pub(super) fn gradients(&self, gradient: &Array) -> Result<[Array; 2]> {
        let unit = Array::from_f32(self.unit);
        let integers = self.integers()?;
        let gradient = gradient.reshape(integers.shape())?;
        let products = gradient.multiply(integers)?;
        let by_s = products.sum_axis(-1, false)?.multiply(&unit)?;
        let by_c = gradient.sum_axis(-1, false)?.multiply(unit)?;
        evaluation::complete([&by_s, &by_c])?;
        Ok([by_s, by_c])
    }

    /// The scales and biases of the parameters `s` and `c`, in the stored type, evaluated.
    pub(super) fn scales_and_biases(&self, s: &Array, c: &Array) -> Result<[Array; 2]> {
        let unit = Array::from_f32(self.unit);
        let (scales, middles) = (s.multiply(&unit)?, c.multiply(&unit)?);
        // The bias belongs to the rounded scale.
        let scales = scales.as_dtype(self.dtype.mlx())?;
        let shift = scales.as_dtype(mlx_rs::Dtype::Float32)?;
        let biases = middles.subtract(shift.multiply(Array::from_f32(self.middle))?)?;
        let biases = biases.as_dtype(self.dtype.mlx())?;
        evaluation::complete([&scales, &biases])?;
        Ok([scales, biases])
    }
}
