//! The loss of a head whose matrix is trained, with its gradient.
//!
//! Shapes: `N` targets, `n` of them at a time, `D` width, `V` vocabulary.

use mlx_rs::{
    Array, Dtype,
    error::Exception,
    ops::{
        arange, concatenate,
        indexing::{TryIndexOp, scatter_add_single, take_along_axis},
        matmul, sum,
    },
    stop_gradient,
};

use super::{batch_arrays::BatchArrays, loss::Loss, softmax::Softmax};
use crate::{error::Result, mlx::Device};

/// The loss of a trained head, computed some rows at a time together with its gradient, so that
/// not all logits are stored and no exponential is computed twice.
///
/// For a row's logits `z`, `s = logsumexp(z)`, smoothing `ε` and z-loss `c` the loss is
/// `s - (1-ε)·z_target - ε·mean(z) + c·s²`; its gradient with respect to `z` is
/// `(1 + 2·c·s)·softmax(z) - (1-ε)·onehot - ε/V`.
pub(super) struct TrainedHead<'a> {
    /// `[V, D]`.
    pub(super) matrix: &'a Array,
    pub(super) z_loss: f32,
    pub(super) label_smoothing: f32,
    pub(super) device: Device,
}

/// The loss and gradients of a part of the rows.
struct HeadPart {
    /// Sums of the cross-entropy and of `s²`, f32 scalars.
    sums: [Array; 2],
    /// Gradient of the sum with respect to the rows `[n, D]`.
    by_rows: Array,
    /// Gradient with respect to the matrix `[V, D]`; on a CPU without the targets' part.
    by_matrix: Array,
}

impl TrainedHead<'_> {
    /// The mean loss over `rows` `[N, D]` for the targets of `batch`.
    pub(super) fn loss(&self, rows: &Array, batch: &BatchArrays) -> Result<Loss> {
        let at_a_time = logits(self.device) / self.matrix.dim(0).max(1);
        self.loss_in_parts(rows, batch, at_a_time)
    }

    fn loss_in_parts(&self, rows: &Array, batch: &BatchArrays, at_a_time: i32) -> Result<Loss> {
        let count = rows.dim(0);
        let fixed = stop_gradient(rows)?;
        let matrix = stop_gradient(self.matrix)?;
        let at_a_time = at_a_time.clamp(16, count.max(16));
        let parts = (0..count).step_by(at_a_time as usize).map(|start| {
            let part = start..(start + at_a_time).min(count);
            let of = |x: &Array| x.try_index(part.clone());
            let counted = batch.counted.as_ref().map(of).transpose()?;
            self.part(&of(&fixed)?, &matrix, &of(&batch.ids)?, counted.as_ref())
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;

        let total = |of: usize| -> Result<Array> {
            let mut total = Array::from_f32(0.0);
            for part in &parts {
                total = total.add(&part.sums[of])?;
            }
            Ok(total)
        };
        let share = Array::from_f32(1.0).divide(&batch.count)?;
        let entropy = total(0)?.multiply(&share)?;
        let z_loss = total(1)?.multiply(Array::from_f32(self.z_loss).divide(&batch.count)?)?;

        let by_rows: Vec<&Array> = parts.iter().map(|part| &part.by_rows).collect();
        let by_rows = match by_rows.as_slice() {
            [one] => (*one).clone(),
            _ => concatenate(&by_rows, 0)?,
        };
        let mut by_matrix = None;
        for part in &parts {
            by_matrix = Some(match by_matrix {
                None => part.by_matrix.clone(),
                Some(sum) => part.by_matrix.add(sum)?,
            });
        }
        let Some(mut by_matrix) = by_matrix else {
            return Err(Exception::custom("no targets").into());
        };
        if self.device == Device::Cpu {
            // The targets' part of the gradient: -(1-ε) times the hidden state, in the target's
            // row.
            let kept = Array::from_f32(self.label_smoothing - 1.0);
            let pulls = fixed.as_dtype(Dtype::Float32)?.multiply(kept)?;
            let pulls = batch.without_padding(&pulls)?.expand_dims(1)?;
            by_matrix = scatter_add_single(&by_matrix, &batch.ids, &pulls, 0)?;
        }

        // A function with these gradients.
        let carry = |x: &Array, gradient: Array| -> Result<Array> {
            let gradient = gradient.as_dtype(x.dtype())?;
            let change = x.multiply(stop_gradient(gradient)?)?;
            Ok(sum(&change.as_dtype(Dtype::Float32)?, false)?)
        };
        let carried = carry(rows, by_rows)?.add(carry(self.matrix, by_matrix)?)?;
        Ok(Loss {
            value: entropy.add(&z_loss)?,
            z_loss,
            differentiable: carried.multiply(share)?,
        })
    }

    fn part(
        &self,
        rows: &Array,
        matrix: &Array,
        ids: &Array,
        counted: Option<&Array>,
    ) -> Result<HeadPart> {
        let logits = matmul(rows, matrix.t())?.as_dtype(Dtype::Float32)?;
        let column = ids.expand_dims(1)?;
        let at_target = take_along_axis(&logits, &column, -1)?;
        let softmax = Softmax::new(logits.clone(), self.device)?;
        let logsumexp = softmax.logsumexp()?;
        let counted = counted.map(|counted| counted.expand_dims(1)).transpose()?;
        let real = |x: Array| -> Result<Array> {
            Ok(match &counted {
                None => x,
                Some(counted) => x.multiply(counted)?,
            })
        };

        let smoothing = self.label_smoothing;
        let kept = Array::from_f32(1.0 - smoothing);
        let mut predicted = at_target.multiply(&kept)?;
        let grown = logsumexp.multiply(Array::from_f32(2.0 * self.z_loss))?;
        let mut by_logits = softmax.scaled(&grown.add(Array::from_f32(1.0))?)?;
        if smoothing > 0.0 {
            let mean = logits.mean_axis(-1, true)?;
            predicted = predicted.add(mean.multiply(Array::from_f32(smoothing))?)?;
            let even = Array::from_f32(smoothing / logits.dim(-1) as f32);
            by_logits = by_logits.subtract(even)?;
        }
        if self.device == Device::Gpu {
            // One more operation of the same kernel; a CPU adds the targets' part by itself.
            let vocabulary = arange::<_, u32>(None, logits.dim(-1), None)?;
            let onehot = vocabulary.eq(&column)?.as_dtype(Dtype::Float32)?;
            by_logits = by_logits.subtract(onehot.multiply(&kept)?)?;
        }
        let by_logits = real(by_logits)?.as_dtype(rows.dtype())?;
        let mut by_rows = matmul(&by_logits, matrix)?;
        if self.device == Device::Cpu {
            let targets = matrix.take_axis(ids, 0)?.as_dtype(Dtype::Float32)?;
            by_rows = by_rows
                .as_dtype(Dtype::Float32)?
                .subtract(real(targets.multiply(kept)?)?)?;
        }
        Ok(HeadPart {
            sums: [
                sum(&real(logsumexp.subtract(predicted)?)?, false)?,
                sum(&real(logsumexp.square()?)?, false)?,
            ],
            by_rows,
            by_matrix: matmul(by_logits.t(), rows)?.as_dtype(Dtype::Float32)?,
        })
    }
}

/// Number of logits that exist at the same time: some rows of a large vocabulary stay in a CPU's
/// caches; a GPU needs a thousand rows to have work for all its cores, and a phone's memory limits
/// them.
fn logits(device: Device) -> i32 {
    match device {
        Device::Cpu => 1 << 20,
        Device::Gpu if cfg!(target_os = "ios") => 1 << 23,
        Device::Gpu => 1 << 25,
    }
}

#[cfg(test)]
mod tests {
    use mlx_rs::{random, transforms::value_and_grad_with_argnums};

    use super::*;
    use crate::data::{batch::Batch, batch::Padding, dataset::Example};

    /// 300 targets of a vocabulary of 50, which padding makes 320.
    fn batch(padded: bool) -> BatchArrays {
        let tokens: Vec<u32> = (0..=300).map(|i| i * 7 % 50).collect();
        let example = Example {
            tokens,
            first_target: 1,
        };
        let padding = Padding {
            pad_to: 512,
            ..Padding::default()
        };
        let batch = Batch::new(&[&example], padding);
        if padded {
            BatchArrays::padded(&batch)
        } else {
            BatchArrays::new(&batch)
        }
    }

    /// Loss, z-loss and both gradients, with `at_a_time` rows.
    fn results(device: Device, at_a_time: i32, padded: bool) -> Vec<f32> {
        let normal = |seed: u64, shape: &[i32]| {
            let key = random::key(seed).unwrap();
            random::normal::<f32>(shape, None, None, &key).unwrap()
        };
        let batch = batch(padded);
        let loss = |arguments: &[Array]| {
            let [rows, matrix] = arguments else {
                unreachable!()
            };
            let head = TrainedHead {
                matrix,
                z_loss: 1e-2,
                label_smoothing: 0.1,
                device,
            };
            let rows = rows.take_axis(batch.places.as_ref().unwrap(), 0)?;
            let loss = head.loss_in_parts(&rows, &batch, at_a_time).unwrap();
            Ok::<_, Exception>(vec![loss.differentiable, loss.value, loss.z_loss])
        };
        let arguments = [normal(1, &[512, 8]), normal(2, &[50, 8])];
        let (values, gradients) =
            value_and_grad_with_argnums(loss, [0, 1].as_slice())(&arguments).unwrap();
        let read = |array: &Array| array.to_vec_exact::<f32>().unwrap();
        values[1..]
            .iter()
            .chain(&gradients)
            .flat_map(read)
            .collect()
    }

    #[test]
    fn loss_and_gradient_do_not_depend_on_the_rows_at_a_time() {
        let expected = results(Device::Cpu, 32, false);
        for (device, at_a_time, padded) in [
            (Device::Cpu, 1024, false),
            (Device::Cpu, 1024, true),
            (Device::Gpu, 32, false),
            (Device::Gpu, 1024, true),
        ] {
            let found = results(device, at_a_time, padded);
            for (found, expected) in found.iter().zip(&expected) {
                assert!(
                    (found - expected).abs() <= 2e-6 * (1.0 + expected.abs()),
                    "{device}, {at_a_time}: {found}, not {expected}"
                );
            }
        }
        assert!(logits(Device::Gpu) / 32_000 >= 1024);
        assert_eq!(logits(Device::Cpu) / 32_000, 32);
    }
}
