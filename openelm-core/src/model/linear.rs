//! A matrix of the checkpoint with its adapters: a projection without bias, the embedding, or a
//! tied embedding and head.

use mlx_rs::{Array, ops::addmm};

use super::{lora::LowRank, rms_norm::RmsNorm};
use crate::{
    error::Result,
    mlx::{
        Dtype, Matrix,
        primitives::{CpuPrimitives, Norm, Then},
    },
};

/// A function of a projection's name and the projection.
pub(crate) type LinearVisitor<'a> = dyn FnMut(&str, &mut Linear) -> Result<()> + 'a;

/// A function of a norm's name and its weight; true if it changed the weight.
pub(crate) type NormVisitor<'a> = dyn FnMut(&str, &mut Array) -> Result<bool> + 'a;

/// `y = x · Wᵀ`, and row look-up, with the low-rank additions of any number of adapters.
#[derive(Debug, Clone)]
pub(crate) struct Linear {
    pub(crate) matrix: Matrix,
    adapters: Vec<LowRank>,
    /// The matrix in f32, if its rows are trained and the matrix has another type.
    f32_rows: Option<Array>,
}

impl Linear {
    /// The matrix without adapters.
    pub(crate) fn new(matrix: Matrix) -> Self {
        Self {
            matrix,
            adapters: Vec::new(),
            f32_rows: None,
        }
    }

    /// Looks up rows in `matrix`, f32 `[out, in]`, and casts them. The gradient of a row is then
    /// summed over its occurrences in f32: a sum of hundreds of terms loses its small ones in
    /// bfloat16.
    pub(crate) fn look_up_in_f32(&mut self, matrix: &Array) {
        self.f32_rows = Some(matrix.clone());
    }

    /// The matrix `[out, in]`, if it is neither quantised nor adapted.
    pub(crate) fn plain_weight(&self) -> Option<&Array> {
        match &self.matrix {
            Matrix::Dense(matrix) if self.adapters.is_empty() => Some(matrix),
            _ => None,
        }
    }

    /// Replaces the adapters of the matrix.
    pub(crate) fn set_adapters(&mut self, adapters: Vec<LowRank>) {
        self.adapters = adapters;
    }

    /// `[..., in]` to `[..., out]`.
    ///
    /// The product has the type of a dense matrix. Only mixed precision has another type of `x`.
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let cast;
        let x = match &self.matrix {
            Matrix::Dense(weight) if weight.dtype() != x.dtype() => {
                cast = x.as_dtype(weight.dtype())?;
                &cast
            }
            _ => x,
        };
        let base = self.matrix.forward(x)?;
        let mut y = None;
        for adapter in &self.adapters {
            y = Some(adapter.add(y.as_ref(), &base, x, &self.matrix)?);
        }
        Ok(y.unwrap_or(base))
    }

    /// Like [`forward`](Self::forward) of the norm of `x`, if there is one; then `then`. One
    /// primitive, if the matrix has no adapters.
    pub(super) fn forward_on_cpu(
        &self,
        primitives: CpuPrimitives,
        x: &Array,
        norm: Option<&RmsNorm>,
        then: Then<'_>,
    ) -> Result<Array> {
        if self.adapters.is_empty() {
            let norm = norm.map(|norm| Norm {
                weight: &norm.weight,
                eps: norm.eps,
            });
            return primitives.linear(x, &self.matrix, norm, then);
        }
        let normed = norm.map(|norm| norm.forward(x)).transpose()?;
        let y = self.forward(normed.as_ref().unwrap_or(x))?;
        match then {
            Then::Nothing => Ok(y),
            Then::Add(residual) => Ok(residual.add(y)?),
            Then::Swiglu => primitives.swiglu(&y),
        }
    }

    /// `residual + y` for the product `y` of `x`, `[..., in]` to `[..., out]`. With `fused`, for a
    /// GPU, it is one kernel if the matrix is neither quantised nor adapted.
    pub(crate) fn forward_onto(&self, residual: &Array, x: &Array, fused: bool) -> Result<Array> {
        match self.plain_weight() {
            Some(weight) if fused => Ok(addmm(residual, x, weight.t(), None, None)?),
            _ => Ok(residual.add(self.forward(x)?)?),
        }
    }

    /// The rows `ids` `[B, L]`, as `[B, L, in]` of type `dtype`.
    pub(crate) fn rows(&self, ids: &Array, dtype: Dtype) -> Result<Array> {
        let base = match &self.f32_rows {
            Some(rows) => rows.take_axis(ids, 0)?.as_dtype(dtype.mlx())?,
            None => self.matrix.rows(ids, dtype)?,
        };
        let mut rows = base.clone();
        for adapter in &self.adapters {
            rows = adapter.add_rows(&rows, &base, ids)?;
        }
        Ok(rows)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mlx_rs::{random, transforms::grad};

    use crate::mlx::{Quantization, QuantizationMode, QuantizedMatrix, graph};

    /// The fused sum is rounded once, the other one twice.
    #[test]
    fn both_forms_of_a_residual_sum_agree() {
        let (rows, inner, width) = (3, 40, 24);
        let array = |shape: &[i32], step: i32| {
            let count: i32 = shape.iter().product();
            let values = (0..count).map(|i| (i * step % 61) as f32 / 30.0 - 1.0);
            Array::from_slice(&values.collect::<Vec<_>>(), shape)
        };
        for (dtype, most) in [
            (mlx_rs::Dtype::Float32, 2e-6),
            (mlx_rs::Dtype::Bfloat16, 2_f32.powi(-7)),
        ] {
            for length in [1, rows] {
                let cast = |x: Array| x.as_dtype(dtype).unwrap();
                let linear = Linear::new(Matrix::Dense(cast(array(&[width, inner], 37))));
                let x = cast(array(&[2, length, inner], 23));
                let residual = cast(array(&[2, length, width], 41));
                let [single, fused] = [false, true].map(|fused| {
                    let sum = linear.forward_onto(&residual, &x, fused).unwrap();
                    assert_eq!((sum.shape(), sum.dtype()), (residual.shape(), dtype));
                    let sum = sum.as_dtype(mlx_rs::Dtype::Float32).unwrap();
                    sum.to_vec_exact::<f32>().unwrap()
                });
                let largest = single.iter().fold(1.0, |most, x| x.abs().max(most));
                for (fused, single) in fused.iter().zip(&single) {
                    let error = (fused - single).abs();
                    assert!(error <= most * largest, "{dtype:?}: {fused}, {single}");
                }
            }
        }
    }

    #[test]
    fn one_kernel_adds_the_residual_of_a_dense_matrix_without_adapters() {
        let key = random::key(1).unwrap();
        let matrix = || random::normal::<f32>(&[64, 64], None, None, &key).unwrap();
        let (x, residual) = (matrix(), matrix());
        let dense = Linear::new(Matrix::Dense(matrix()));
        let mut adapted = dense.clone();
        let [a, b] = [[64, 2], [2, 64]].map(|shape| Array::zeros::<f32>(&shape).unwrap());
        adapted.set_adapters(vec![LowRank::lora(a, b, 1.0, None)]);
        let four_bits = Quantization::new(QuantizationMode::Affine, None, None).unwrap();
        let quantized = QuantizedMatrix::quantize(&matrix(), four_bits).unwrap();
        let quantized = Linear::new(Matrix::Quantized(quantized));
        for (linear, fused, expected) in [
            (&dense, true, 1),
            (&dense, false, 0),
            (&adapted, true, 0),
            (&quantized, true, 0),
        ] {
            let sum = linear.forward_onto(&residual, &x, fused).unwrap();
            let sums = graph::operations(&[&sum]);
            let sums = sums.iter().filter(|o| o.name == "AddMM").count();
            assert_eq!(sums, expected);
        }
    }

    #[test]
    fn gradient_of_frequent_rows_is_summed_in_f32() {
        let times = 1000;
        let ids = Array::zeros::<i32>(&[1, times]).unwrap();
        let matrix = Array::ones::<f32>(&[2, 4]).unwrap();
        let summed = |in_f32: bool| {
            let ids = ids.clone();
            let loss = move |inputs: &[Array]| {
                let [matrix] = inputs else {
                    panic!("one input")
                };
                let cast = matrix.as_dtype(mlx_rs::Dtype::Bfloat16)?;
                let mut linear = Linear::new(Matrix::Dense(cast));
                if in_f32 {
                    linear.look_up_in_f32(matrix);
                }
                let rows = linear.rows(&ids, Dtype::Bfloat16).unwrap();
                assert_eq!(rows.dtype(), mlx_rs::Dtype::Bfloat16);
                Ok(vec![rows.as_dtype(mlx_rs::Dtype::Float32)?.sum(None)?])
            };
            let gradient = grad(loss)(std::slice::from_ref(&matrix)).unwrap();
            gradient[0].to_vec_exact::<f32>().unwrap()
        };
        let expected = [[times as f32; 4], [0.0; 4]].concat();
        assert_eq!(summed(true), expected);
        // bfloat16 has eight bits: the sum of ones ends at 256.
        assert_ne!(summed(false), expected);
    }
}
