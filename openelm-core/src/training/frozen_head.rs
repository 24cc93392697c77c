//! The log-probabilities of a head that is not trained, with their gradient.
//!
//! Shapes: `N` targets, `n` of them at a time, `D` width, `V` vocabulary.

use mlx_rs::{
    Array, Dtype,
    error::Exception,
    ops::{
        arange, concatenate,
        indexing::{TryIndexOp, put_along_axis, take_along_axis},
    },
    stop_gradient,
    transforms::fallible_vjp,
};

use super::{batch_arrays::BatchArrays, exception::into_exception, softmax::Softmax};
use crate::{error::Result, mlx::Device, model::Linear};

/// A head that is not trained, computed some rows at a time together with its gradient: no logits
/// are stored for it. For logits `z`, `s = logsumexp(z)` and z-loss `c` the function is
/// `z_target - s - c·s²`, and its gradient `onehot - (1 + 2·c·s)·softmax(z)`, multiplied by the
/// head.
pub(super) struct FrozenHead<'a> {
    head: &'a Linear,
    device: Device,
    z_loss: f32,
    /// Rows whose logits exist at the same time.
    rows: i32,
}

/// The results of a frozen head for all targets.
pub(super) struct Predicted {
    /// Log-probabilities of the targets, f32 `[N]`.
    pub(super) values: Array,
    /// `logsumexp²` of the logits, f32 `[N]`; none without z-loss.
    pub(super) squares: Option<Array>,
    /// Gradients of the function with respect to the rows, `[N, D]`; zero for padding.
    pub(super) by_rows: Array,
}

impl<'a> FrozenHead<'a> {
    pub(super) fn new(head: &'a Linear, z_loss: f32) -> Result<Self> {
        let device = Device::current()?;
        Ok(Self {
            head,
            device,
            z_loss,
            rows: chunk(device),
        })
    }

    /// The log-probabilities of the targets of `batch` after `rows` `[N, D]`.
    pub(super) fn predict(&self, rows: &Array, batch: &BatchArrays) -> Result<Predicted> {
        let fixed = stop_gradient(rows)?;
        let count = rows.dim(0);
        let (mut values, mut squares, mut by_rows) = (Vec::new(), Vec::new(), Vec::new());
        for start in (0..count).step_by(self.rows.max(1) as usize) {
            let part = start..(start + self.rows).min(count);
            let of = |x: &Array| x.try_index(part.clone());
            let counted = batch.counted.as_ref().map(of);
            let predicted = self.part(
                &of(&fixed)?,
                &of(&batch.ids)?,
                counted.transpose()?.as_ref(),
            )?;
            values.push(predicted.values);
            squares.extend(predicted.squares);
            by_rows.push(predicted.by_rows);
        }
        Ok(Predicted {
            values: joined(values)?,
            squares: (!squares.is_empty()).then(|| joined(squares)).transpose()?,
            by_rows: joined(by_rows)?,
        })
    }

    fn part(&self, rows: &Array, ids: &Array, counted: Option<&Array>) -> Result<Predicted> {
        let logits = self.head.forward(rows)?.as_dtype(Dtype::Float32)?;
        let ids = ids.expand_dims(1)?;
        let at_target = take_along_axis(&logits, &ids, -1)?;
        let softmax = Softmax::new(logits, self.device)?;
        let values = softmax.log_probabilities(&at_target)?;

        let (pull, squares) = if self.z_loss == 0.0 {
            (softmax.probabilities()?, None)
        } else {
            let logsumexp = softmax.logsumexp()?;
            let grown = logsumexp.multiply(Array::from_f32(2.0 * self.z_loss))?;
            let pull = softmax.scaled(&grown.add(Array::from_f32(1.0))?)?;
            (pull, Some(logsumexp.square()?.squeeze_axes(&[-1])?))
        };
        let mut by_logits = self.onehot_minus(&pull, &ids)?;
        if let Some(counted) = counted {
            by_logits = by_logits.multiply(counted.expand_dims(1)?)?;
        }
        let by_logits = by_logits.as_dtype(rows.dtype())?;
        let through = |x: &[Array]| match x {
            [x] => Ok(vec![self.head.forward(x).map_err(into_exception)?]),
            _ => Ok(Vec::new()),
        };
        let (_, by_rows) = fallible_vjp(through, std::slice::from_ref(rows), &[by_logits])?;
        let by_rows = by_rows.into_iter().next();
        let by_rows = by_rows.ok_or_else(|| Exception::custom("the head gave no gradient"))?;
        Ok(Predicted {
            values: values.squeeze_axes(&[-1])?,
            squares,
            by_rows,
        })
    }

    /// `onehot - pull` of `pull` `[n, V]` and `ids` `[n, 1]`.
    fn onehot_minus(&self, pull: &Array, ids: &Array) -> Result<Array> {
        if self.device == Device::Cpu {
            // One operation on all numbers and a copy, in place of three operations.
            let at_target = take_along_axis(pull, ids, -1)?;
            let at_target = Array::from_f32(1.0).subtract(at_target)?;
            return Ok(put_along_axis(pull.negative()?, ids, at_target, -1)?);
        }
        let vocabulary = arange::<_, u32>(None, pull.dim(-1), None)?;
        let onehot = vocabulary.eq(ids)?.as_dtype(Dtype::Float32)?;
        Ok(onehot.subtract(pull)?)
    }
}

/// Rows whose logits exist at the same time. Few keep a CPU's caches warm; a GPU needs many to
/// have work for all its cores, and a phone's memory limits them.
pub(super) fn chunk(device: Device) -> i32 {
    match device {
        Device::Cpu => 64,
        Device::Gpu if cfg!(target_os = "ios") => 256,
        Device::Gpu => 1024,
    }
}

fn joined(mut parts: Vec<Array>) -> Result<Array> {
    Ok(match (parts.len(), parts.pop()) {
        (1, Some(part)) => part,
        (_, last) => {
            parts.extend(last);
            concatenate(&parts, 0)?
        }
    })
}

#[cfg(test)]
mod tests {
    use mlx_rs::random;

    use super::*;
    use crate::mlx::Matrix;

    #[test]
    fn values_and_gradient_do_not_depend_on_the_rows_at_a_time() {
        let normal = |seed: u64, shape: &[i32]| {
            let key = random::key(seed).unwrap();
            random::normal::<f32>(shape, None, None, &key).unwrap()
        };
        let head = Linear::new(Matrix::Dense(normal(1, &[50, 8])));
        let rows = normal(2, &[300, 8]);
        let ids: Vec<u32> = (0..300).map(|i| i * 7 % 50).collect();
        let batch = BatchArrays {
            tokens: Array::from_slice(&ids, &[1, 300]),
            ids: Array::from_slice(&ids, &[300]),
            count: Array::from_f32(300.0),
            documents: None,
            places: None,
            counted: None,
        };
        let results = |device: Device, at_a_time: i32| {
            let frozen = FrozenHead {
                head: &head,
                device,
                z_loss: 0.01,
                rows: at_a_time,
            };
            let predicted = frozen.predict(&rows, &batch).unwrap();
            let read = |array: Array| array.to_vec_exact::<f32>().unwrap();
            let squares = read(predicted.squares.unwrap());
            [read(predicted.values), squares, read(predicted.by_rows)].concat()
        };
        let expected = results(Device::Cpu, chunk(Device::Cpu));
        for (device, at_a_time) in [
            (Device::Cpu, 1024),
            (Device::Gpu, 64),
            (Device::Gpu, chunk(Device::Gpu)),
        ] {
            for (found, expected) in results(device, at_a_time).iter().zip(&expected) {
                assert!(
                    (found - expected).abs() <= 1e-5 * (1.0 + expected.abs()),
                    "{device}, {at_a_time}: {found}, not {expected}"
                );
            }
        }
    }

    /// MLX's own gradient of `z_target - s - c·s²`.
    #[test]
    fn the_gradient_includes_z_loss() {
        let normal = |seed: u64, shape: &[i32]| {
            let key = random::key(seed).unwrap();
            random::normal::<f32>(shape, None, None, &key).unwrap()
        };
        let matrix = normal(1, &[50, 8]);
        let head = Linear::new(Matrix::Dense(matrix.clone()));
        let rows = normal(2, &[20, 8]);
        let ids: Vec<u32> = (0..20).map(|i| i * 7 % 50).collect();
        let batch = BatchArrays {
            tokens: Array::from_slice(&ids, &[1, 20]),
            ids: Array::from_slice(&ids, &[20]),
            count: Array::from_f32(20.0),
            documents: None,
            places: None,
            counted: None,
        };
        let c = 0.3;
        let of = |x: &[Array]| {
            let logits = x[0].matmul(matrix.t())?;
            let at_target = take_along_axis(&logits, &batch.ids.expand_dims(1)?, -1)?;
            let s = logits.logsumexp_axes(&[-1], false)?;
            let z_loss = s.square()?.multiply(Array::from_f32(c))?;
            let value = at_target.squeeze_axes(&[-1])?.subtract(&s)?;
            Ok(vec![value.subtract(z_loss)?])
        };
        let ones = mlx_rs::ops::ones::<f32>(&[20]).unwrap();
        let (values, gradients) = fallible_vjp(of, std::slice::from_ref(&rows), &[ones]).unwrap();
        let predicted = FrozenHead::new(&head, c).unwrap().predict(&rows, &batch);
        let Predicted {
            values: log_probabilities,
            squares,
            by_rows,
        } = predicted.unwrap();
        let z_loss = squares.unwrap().multiply(Array::from_f32(c)).unwrap();
        let found = log_probabilities.subtract(z_loss).unwrap();
        for (found, expected) in [(found, &values[0]), (by_rows, &gradients[0])] {
            let off = found.subtract(expected).unwrap().abs().unwrap();
            let off = off.max(false).unwrap().try_item_exact::<f32>().unwrap();
            assert!(off < 1e-4, "{off}");
        }
    }
}
