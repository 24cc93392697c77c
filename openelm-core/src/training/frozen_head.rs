//! The log-probabilities of a head that is not trained, with their gradient.
//!
//! Shapes: `N` targets, `n` of them at a time, `D` width, `V` vocabulary.

use mlx_rs::{
    Array, Dtype,
    error::Exception,
    ops::{
        arange, concatenate,
        indexing::{TryIndexOp, take_along_axis},
    },
    stop_gradient,
    transforms::fallible_vjp,
};

use super::{batch_arrays::BatchArrays, exception::into_exception, softmax::Softmax};
use crate::{error::Result, mlx::Device, model::Linear};

/// A head that is not trained, computed some rows at a time together with its gradient: no logits
/// are stored for it. For logits `z` it is `onehot - softmax(z)`, multiplied by the head.
pub(super) struct FrozenHead<'a> {
    head: &'a Linear,
    device: Device,
    /// Rows whose logits exist at the same time.
    rows: i32,
}

/// The results of a frozen head for all targets.
pub(super) struct Predicted {
    /// Log-probabilities of the targets, f32 `[N]`.
    pub(super) values: Array,
    /// Their gradients with respect to the rows, `[N, D]`; zero for padding.
    pub(super) by_rows: Array,
}

impl<'a> FrozenHead<'a> {
    pub(super) fn new(head: &'a Linear) -> Result<Self> {
        let device = Device::current()?;
        Ok(Self {
            head,
            device,
            rows: chunk(device),
        })
    }

    /// The log-probabilities of the targets of `batch` after `rows` `[N, D]`.
    pub(super) fn predict(&self, rows: &Array, batch: &BatchArrays) -> Result<Predicted> {
        let fixed = stop_gradient(rows)?;
        let count = rows.dim(0);
        let (mut values, mut by_rows) = (Vec::new(), Vec::new());
        for start in (0..count).step_by(self.rows.max(1) as usize) {
            let part = start..(start + self.rows).min(count);
            let of = |x: &Array| x.try_index(part.clone());
            let counted = batch.counted.as_ref().map(of);
            let (value, by_row) = self.part(
                &of(&fixed)?,
                &of(&batch.ids)?,
                counted.transpose()?.as_ref(),
            )?;
            values.push(value);
            by_rows.push(by_row);
        }
        Ok(Predicted {
            values: joined(values)?,
            by_rows: joined(by_rows)?,
        })
    }

    fn part(&self, rows: &Array, ids: &Array, counted: Option<&Array>) -> Result<(Array, Array)> {
        let logits = self.head.forward(rows)?.as_dtype(Dtype::Float32)?;
        let ids = ids.expand_dims(1)?;
        let at_target = take_along_axis(&logits, &ids, -1)?;
        let vocabulary = arange::<_, u32>(None, logits.dim(-1), None)?;
        let softmax = Softmax::new(logits, self.device)?;
        let values = softmax.log_probabilities(&at_target)?;

        let onehot = vocabulary.eq(&ids)?.as_dtype(Dtype::Float32)?;
        let mut by_logits = onehot.subtract(softmax.probabilities()?)?;
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
        Ok((values.squeeze_axes(&[-1])?, by_rows))
    }
}

/// Rows whose logits exist at the same time. Few keep a CPU's caches warm; a GPU needs many to
/// have work for all its cores, and a phone's memory limits them.
fn chunk(device: Device) -> i32 {
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
                rows: at_a_time,
            };
            let predicted = frozen.predict(&rows, &batch).unwrap();
            let read = |array: Array| array.to_vec_exact::<f32>().unwrap();
            [read(predicted.values), read(predicted.by_rows)].concat()
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
}
