//! LoRA and DoRA of a matrix `W` `[out, in]`. LoRA adds `x · A · B`, where `A` is `[in, r]` and `B`
//! `[r, out]` (arXiv 2106.09685); DoRA also trains the magnitudes of the rows of `W + ΔW`
//! (arXiv 2402.09353; CoreNet `lora.py`).

use mlx_rs::{
    Array, Dtype,
    ops::{addmm, matmul, maximum},
    random::bernoulli,
    stop_gradient,
};

use crate::{
    error::Result,
    mlx::{self, Device, Matrix},
};

/// A low-rank addition to one matrix.
#[derive(Debug, Clone)]
pub(crate) struct LowRank {
    /// `A`, `[in, r]`.
    a: Array,
    /// `B`, `[r, out]`.
    b: Array,
    scale: f32,
    dropout: Option<Dropout>,
    magnitude: Option<Magnitude>,
}

/// Dropout of an adapter's input during training.
#[derive(Debug, Clone)]
pub(crate) struct Dropout {
    /// Fraction of elements set to zero.
    pub(crate) rate: f32,
    /// Random key of the mask, u32 `[2]`: the same key gives the same mask.
    pub(crate) key: Array,
}

/// DoRA's trained row magnitudes divided by the row norms of `W + ΔW`.
#[derive(Debug, Clone)]
struct Magnitude {
    /// `m / ‖W + ΔW‖`, f32 `[out]`.
    ratio: Array,
}

/// Parts of `‖W + s·ΔW‖²` per row, f32 `[out]`: it is `square + 2·s·cross + s²·delta`, which needs
/// no matrix of the size of `W`.
#[derive(Debug, Clone)]
pub(crate) struct RowNorms {
    square: Array,
    /// `None` if `square` is the whole sum for one scale.
    parts: Option<Parts>,
}

#[derive(Debug, Clone)]
struct Parts {
    cross: Array,
    delta: Array,
}

impl LowRank {
    /// LoRA: adds `scale · x · A · B`.
    pub(crate) fn lora(a: Array, b: Array, scale: f32, dropout: Option<Dropout>) -> Self {
        Self {
            a,
            b,
            scale,
            dropout,
            magnitude: None,
        }
    }

    /// DoRA: like [`lora`](Self::lora), with each row of the sum scaled to the length `m` f32
    /// `[out]`. `norms` must be computed from the matrix and the same `A` and `B`.
    pub(crate) fn with_magnitude(mut self, m: &Array, norms: &RowNorms) -> Result<Self> {
        let ratio = m.divide(norms.at(self.scale)?)?;
        self.magnitude = Some(Magnitude { ratio });
        Ok(self)
    }

    /// Adds the low-rank term to `y`; `base` `[..., out]` is the product of `matrix` and `x`
    /// `[..., in]`. `None` for `y` is `base`.
    pub(crate) fn add(
        &self,
        y: Option<&Array>,
        base: &Array,
        x: &Array,
        matrix: &Matrix,
    ) -> Result<Array> {
        let (alone, y) = (y.is_none(), y.unwrap_or(base));
        let dtype = y.dtype();
        let dropped = match &self.dropout {
            Some(dropout) => dropout.apply(x)?,
            None => x.clone(),
        };
        let gpu = Device::current()? == Device::Gpu;
        let Some(magnitude) = &self.magnitude else {
            return if gpu {
                self.add_fused(y, &dropped)
            } else {
                Ok(y.add(self.delta(&dropped, dtype)?)?)
            };
        };
        // With dropout, the magnitudes also scale the product of the matrix and the dropped input.
        let through = match &self.dropout {
            Some(_) => matrix.forward(&dropped)?,
            None => base.clone(),
        };
        let ratio = as_type(&magnitude.ratio, dtype)?;
        if alone && self.dropout.is_none() && gpu {
            // The same sum with fewer kernels, in its gradient too.
            return Ok(self.add_fused(base, &dropped)?.multiply(ratio)?);
        }
        let delta = self.delta(&dropped, dtype)?;
        let one = Array::from_f32(1.0).as_dtype(dtype)?;
        let turned = through.multiply(ratio.subtract(one)?)?;
        Ok(y.add(turned)?.add(delta.multiply(&ratio)?)?)
    }

    /// `scale · x · A · B` in `dtype`, `[..., in]` to `[..., out]`.
    fn delta(&self, x: &Array, dtype: Dtype) -> Result<Array> {
        let (a, b) = (as_type(&self.a, dtype)?, as_type(&self.b, dtype)?);
        let scale = Array::from_f32(self.scale).as_dtype(dtype)?;
        // The scale multiplies the narrow product, where it costs least.
        Ok(matmul(matmul(x, &a)?.multiply(scale)?, &b)?)
    }

    /// `y + scale · x · A · B` for a GPU: two kernels beside the casts.
    fn add_fused(&self, y: &Array, x: &Array) -> Result<Array> {
        let (a, scale) = scaled(&self.a, self.scale, y.dtype())?;
        let b = as_type(&self.b, y.dtype())?;
        // The gradient of a product of matrices needs no sum over a batch.
        let narrow = matmul(x.flatten(None, -2)?, &a)?;
        let sum = addmm(y.flatten(None, -2)?, &narrow, &b, scale, None)?;
        Ok(sum.reshape(y.shape())?)
    }

    /// Adds the low-rank term of an embedding to `y`; `base` `[B, L, in]` are its rows `ids`
    /// `[B, L]`. Without dropout, as in CoreNet and PEFT.
    pub(crate) fn add_rows(&self, y: &Array, base: &Array, ids: &Array) -> Result<Array> {
        let dtype = y.dtype();
        let (a, b) = (as_type(&self.a, dtype)?, as_type(&self.b, dtype)?);
        let scale = Array::from_f32(self.scale).as_dtype(dtype)?;
        let narrow = b.t().take_axis(ids, 0)?.multiply(scale)?;
        let delta = matmul(narrow, a.t())?;
        let Some(magnitude) = &self.magnitude else {
            return Ok(y.add(delta)?);
        };
        let ratio = magnitude.ratio.take_axis(ids, 0)?.expand_dims(-1)?;
        let ratio = as_type(&ratio, dtype)?;
        let one = Array::from_f32(1.0).as_dtype(dtype)?;
        let turned = base.multiply(ratio.subtract(one)?)?;
        Ok(y.add(turned)?.add(delta.multiply(ratio)?)?)
    }
}

impl RowNorms {
    /// The parts of `‖W + s·(A·B)ᵀ‖²` for `square` (see [`row_squares`]) of the same `W`, computed
    /// in `dtype`, the model's. No gradient flows through them (DoRA, section 4.3).
    pub(crate) fn new(
        square: &Array,
        matrix: &Matrix,
        a: &Array,
        b: &Array,
        dtype: mlx::Dtype,
    ) -> Result<Self> {
        let (a, b) = (stop_gradient(a)?, stop_gradient(b)?);
        // (W · A)ᵀ, [r, out]
        let through = matrix.forward(&as_type(&a.t(), dtype.mlx())?)?;
        let through = as_type(&through, Dtype::Float32)?;
        let gram = matmul(a.t(), &a)?;
        Ok(Self {
            square: square.clone(),
            parts: Some(Parts {
                cross: through.multiply(&b)?.sum_axis(0, false)?,
                delta: matmul(gram, &b)?.multiply(&b)?.sum_axis(0, false)?,
            }),
        })
    }

    /// As [`new`](Self::new) for one `scale` only, with fewer kernels.
    pub(crate) fn with_scale(
        square: &Array,
        matrix: &Matrix,
        a: &Array,
        b: &Array,
        dtype: mlx::Dtype,
        scale: f32,
    ) -> Result<Self> {
        let (scaled, rest) = scaled(a, scale, dtype.mlx())?;
        let (a, b) = (stop_gradient(a)?, stop_gradient(b)?);
        let through = matrix.forward(&stop_gradient(&scaled)?.t())?;
        let cross = as_type(&through, Dtype::Float32)?.multiply(Array::from_f32(2.0 * rest))?;
        let delta = matmul(matmul(a.t(), &a)?, &b)?.multiply(Array::from_f32(scale * scale))?;
        let change = cross.add(delta)?.multiply(&b)?.sum_axis(0, false)?;
        Ok(Self {
            square: square.add(change)?,
            parts: None,
        })
    }

    /// `‖W + scale·ΔW‖` per row, f32 `[out]`, above 0: a row of zeros stays one, and the rounded
    /// sum can be negative.
    pub(crate) fn at(&self, scale: f32) -> Result<Array> {
        let square = match &self.parts {
            None => self.square.clone(),
            Some(Parts { cross, delta }) => {
                let cross = cross.multiply(Array::from_f32(2.0 * scale))?;
                let delta = delta.multiply(Array::from_f32(scale * scale))?;
                self.square.add(cross)?.add(delta)?
            }
        };
        Ok(maximum(square, Array::from_f32(f32::MIN_POSITIVE))?.sqrt()?)
    }

    /// Evaluates the parts now, so that a change of scale does not need the matrix.
    pub(crate) fn eval(&self) -> Result<()> {
        let parts = self.parts.iter();
        let parts = parts.flat_map(|Parts { cross, delta }| [cross, delta]);
        Ok(mlx_rs::transforms::eval(
            std::iter::once(&self.square).chain(parts),
        )?)
    }
}

/// Squared length of each row of `matrix`, f32 `[out]`.
pub(crate) fn row_squares(matrix: &Matrix) -> Result<Array> {
    Ok(matrix.float32()?.square()?.sum_axis(-1, false)?)
}

impl Dropout {
    /// Sets a fraction of the elements of `x` to zero and scales the remaining ones to compensate.
    fn apply(&self, x: &Array) -> Result<Array> {
        let keep = 1.0 - self.rate;
        let mask = bernoulli(&Array::from_f32(keep), x.shape(), &self.key)?;
        let grown = Array::from_f32(1.0 / keep).as_dtype(x.dtype())?;
        Ok(x.multiply(mask.as_dtype(x.dtype())?)?.multiply(grown)?)
    }
}

/// `A` in `dtype`, and the part of `scale` that it is not multiplied by. A compiled step casts and
/// multiplies in one kernel; an `A` that is not cast is not multiplied.
fn scaled(a: &Array, scale: f32, dtype: Dtype) -> Result<(Array, f32)> {
    if a.dtype() == dtype {
        return Ok((a.clone(), scale));
    }
    let a = a.multiply(Array::from_f32(scale).as_dtype(a.dtype())?)?;
    Ok((a.as_dtype(dtype)?, 1.0))
}

/// `array` cast to `dtype`; the array itself if it has this type.
fn as_type(array: &Array, dtype: Dtype) -> Result<Array> {
    Ok(if array.dtype() == dtype {
        array.clone()
    } else {
        array.as_dtype(dtype)?
    })
}

#[cfg(test)]
mod tests {
    use mlx_rs::{random, transforms::fallible_vjp};

    use super::*;

    /// Values and gradients of `x`, `A`, `B` and DoRA's magnitudes. In bfloat16, `A` and `B` are
    /// float32, as in training.
    #[test]
    fn a_gpus_sum_is_the_cpus() {
        let (inner, rank, out, scale) = (24, 4, 40, 20.0);
        let mut seed = 0;
        let mut random = |shape: &[i32], size: f32| {
            seed += 1;
            let key = random::key(seed).unwrap();
            let x = random::normal::<f32>(shape, None, None, &key).unwrap();
            x.multiply(Array::from_f32(size)).unwrap()
        };
        let primals = [
            random(&[2, 3, inner], 1.0),
            random(&[inner, rank], 0.05),
            random(&[rank, out], 0.05),
            random(&[out], 0.1).add(Array::from_f32(1.0)).unwrap(),
        ];
        let weight = random(&[out, inner], 0.2);
        let cotangent = random(&[2, 3, out], 1.0);
        for (dtype, most) in [(mlx::Dtype::Float32, 2e-5), (mlx::Dtype::Bfloat16, 2e-2)] {
            for dora in [false, true] {
                let cast = |x: &Array| x.as_dtype(dtype.mlx()).unwrap();
                let matrix = Matrix::Dense(cast(&weight));
                let [cpu, gpu] = [Device::Cpu, Device::Gpu].map(|device| {
                    let _device = device.select();
                    let sum = |x: &[Array]| {
                        let [x, a, b, m] = x else {
                            panic!("four arguments")
                        };
                        let square = row_squares(&matrix).unwrap();
                        let norms = match device {
                            Device::Cpu => RowNorms::new(&square, &matrix, a, b, dtype),
                            Device::Gpu => {
                                RowNorms::with_scale(&square, &matrix, a, b, dtype, scale)
                            }
                        };
                        let mut added = LowRank::lora(a.clone(), b.clone(), scale, None);
                        if dora {
                            added = added.with_magnitude(m, &norms.unwrap()).unwrap();
                        }
                        let base = matrix.forward(x).unwrap();
                        Ok::<_, mlx_rs::error::Exception>(vec![
                            added.add(None, &base, x, &matrix).unwrap(),
                        ])
                    };
                    let [x, a, b, m] = &primals;
                    let primals = [cast(x), a.clone(), b.clone(), m.clone()];
                    let (mut values, gradients) =
                        fallible_vjp(sum, &primals, &[cast(&cotangent)]).unwrap();
                    assert_eq!(values[0].shape(), cotangent.shape());
                    values.extend(gradients);
                    values
                });
                for (i, (cpu, gpu)) in cpu.iter().zip(&gpu).enumerate() {
                    assert_eq!(cpu.dtype(), gpu.dtype());
                    let values = |x: &Array| {
                        let x = x.as_dtype(Dtype::Float32).unwrap();
                        x.to_vec_exact::<f32>().unwrap()
                    };
                    let (cpu, gpu) = (values(cpu), values(gpu));
                    let largest = cpu.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
                    for (cpu, gpu) in cpu.iter().zip(&gpu) {
                        let error = (cpu - gpu).abs();
                        assert!(
                            error <= most * largest,
                            "{dtype:?}, dora {dora}, {i}: {cpu}, {gpu}"
                        );
                    }
                }
            }
        }
    }
}
