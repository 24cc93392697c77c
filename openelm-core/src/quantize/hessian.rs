//! The Hessian of a matrix's output error: `H = Σ x xᵀ` over the inputs `x` of the calibration
//! text. The squared error of the output for a change `Δ` of a row is `Δ H Δᵀ`.

use mlx_rs::{
    Array, Stream,
    linalg::{cholesky, tri_inv},
    ops::{diag, eye, indexing::TryIndexOp, matmul},
    with_stream,
};

use crate::{
    error::{Error, Result},
    mlx::evaluation,
    model::is_finite,
};

/// A Hessian, as the sum so far.
#[derive(Debug)]
pub(super) struct Hessian {
    /// f32 `[width, width]`.
    sum: Array,
}

impl Hessian {
    pub(super) fn new(width: usize) -> Result<Self> {
        let width = width as i32;
        Ok(Self {
            sum: Array::zeros::<f32>(&[width, width])?,
        })
    }

    /// Adds the inputs `x` `[..., width]`, f32. Waits for the sum.
    pub(super) fn add(&mut self, x: &Array) -> Result<()> {
        let x = x.reshape(&[-1, self.sum.dim(0)])?;
        self.sum = self.sum.add(matmul(x.t(), &x)?)?;
        evaluation::complete([&self.sum])
    }

    /// `Σ x xᵀ`, f32 `[width, width]`.
    pub(super) fn sum(&self) -> &Array {
        &self.sum
    }

    /// The sum of the squares of each input, f32 `[width]`.
    fn diagonal(&self) -> Result<Array> {
        Ok(diag(&self.sum, None)?)
    }

    /// Adds `share` of the mean of the diagonal to the diagonal.
    fn damped(&self, share: f64) -> Result<Array> {
        let mean = self.diagonal()?.mean(None)?;
        // A matrix whose inputs are all zero.
        let mean = mlx_rs::ops::maximum(mean, Array::from_f32(f32::MIN_POSITIVE * 1e6))?;
        let damp = mean.multiply(Array::from_f32(share as f32))?;
        let identity = eye::<f32>(self.sum.dim(0), None, None)?;
        Ok(self.sum.add(identity.multiply(damp)?)?)
    }

    /// The upper triangular factor `U` with `H⁻¹ = Uᵀ U`, f32 `[width, width]`. `share` of the mean
    /// of the diagonal is added to the diagonal first. `name` is the matrix, for errors.
    ///
    /// With the rows and columns of `H` in reverse, `H = L Lᵀ`; `L` in reverse is upper triangular,
    /// and `U` is its inverse.
    ///
    /// # Errors
    /// [`Error::NonFinite`] if an input was not finite; [`Error::Mlx`].
    pub(super) fn inverse_factor(&self, share: f64, name: &str) -> Result<Array> {
        if !is_finite(&self.sum)? {
            return Err(Error::NonFinite {
                place: format!("the input of `{name}`"),
                problem: "the calibration text gives NaN or infinity".into(),
            });
        }
        // MLX decomposes on the CPU only.
        let damped = reversed(&self.damped(share)?)?;
        let factor = with_stream(&Stream::cpu(), || {
            tri_inv(reversed(&cholesky(damped, None)?)?, Some(true)).map_err(Error::from)
        })?;
        evaluation::complete([&factor])?;
        if !is_finite(&factor)? {
            return Err(Error::NonFinite {
                place: format!("the input of `{name}`"),
                problem: "its Hessian has no inverse; use more damping".into(),
            });
        }
        Ok(factor)
    }
}

/// Rows and columns in reverse order.
fn reversed(matrix: &Array) -> Result<Array> {
    let last = matrix.dim(0) - 1;
    let indices: Vec<i32> = (0..=last).rev().collect();
    let indices = Array::from_slice(&indices, &[last + 1]);
    let rows = matrix.try_index(&indices)?;
    Ok(rows.take_axis(&indices, 1)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_factor_is_that_of_the_inverse() {
        let key = mlx_rs::random::key(7).unwrap();
        let x = mlx_rs::random::normal::<f32>(&[2, 40, 12], None, None, &key).unwrap();
        let mut hessian = Hessian::new(12).unwrap();
        hessian.add(&x).unwrap();
        let factor = hessian.inverse_factor(0.01, "m").unwrap();
        let values = factor.to_vec_exact::<f32>().unwrap();
        for row in 0..12 {
            assert!(values[row * 12..row * 12 + row].iter().all(|&x| x == 0.0));
        }
        let inverse = matmul(factor.t(), &factor).unwrap();
        let product = matmul(&inverse, hessian.damped(0.01).unwrap()).unwrap();
        let identity = eye::<f32>(12, None, None).unwrap();
        let error = product.subtract(&identity).unwrap().abs().unwrap();
        assert!(error.max(None).unwrap().item_exact::<f32>() < 1e-4);
    }

    #[test]
    fn inputs_that_are_not_finite_are_an_error() {
        let mut hessian = Hessian::new(2).unwrap();
        hessian
            .add(&Array::from_slice(&[1.0, f32::NAN], &[1, 2]))
            .unwrap();
        let error = hessian.inverse_factor(0.01, "m").unwrap_err().to_string();
        assert!(error.contains("`m`"), "{error}");
    }
}
