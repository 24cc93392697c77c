//! A matrix of the checkpoint with its adapters: a projection without bias, the embedding, or a
//! tied embedding and head.

use mlx_rs::Array;

use super::lora::LowRank;
use crate::{
    error::Result,
    mlx::{Dtype, Matrix},
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
    pub(crate) fn forward(&self, x: &Array) -> Result<Array> {
        let base = self.matrix.forward(x)?;
        let mut y = None;
        for adapter in &self.adapters {
            y = Some(adapter.add(y.as_ref(), &base, x, &self.matrix)?);
        }
        Ok(y.unwrap_or(base))
    }

    /// The rows `ids` `[B, L]`, as `[B, L, in]` of type `dtype`.
    pub(crate) fn rows(&self, ids: &Array, dtype: Dtype) -> Result<Array> {
        let base = match &self.matrix {
            Matrix::Dense(weight) => match &self.f32_rows {
                Some(rows) => rows.take_axis(ids, 0)?.as_dtype(dtype.mlx())?,
                None => weight.take_axis(ids, 0)?,
            },
            Matrix::Quantized(matrix) => matrix.take_rows(ids)?.dequantize(dtype.mlx())?,
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
    use mlx_rs::transforms::grad;

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
