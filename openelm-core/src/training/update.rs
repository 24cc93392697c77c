//! One update by several batches, of one process or of a group of them: the gradient is that of the
//! mean loss over all their targets, however they are divided.

use mlx_rs::{Array, ops::concatenate, transforms};

use super::{
    gradient,
    group::Group,
    loss,
    trainer::{Step, Trainer, derive_seed, no_targets},
};
use crate::{data::batch::Batch, error::Result};

/// Numbers that are sent to the group at a time: 32 MiB.
const BUCKET: usize = 8 << 20;

impl Trainer {
    /// Trains on `batches` together, those of the other processes of `group` among them, and makes
    /// one update. Every process must call it as often, and comes to the same weights.
    ///
    /// The step's loss is the mean over all targets; its targets are those of all.
    ///
    /// # Errors
    /// [`crate::error::Error::Option`] if no batch of any process has a target,
    /// [`crate::error::Error::Diverged`] if the loss or the gradient is no number, [`crate::error::Error::Mlx`]
    /// if memory runs out.
    pub fn update(&mut self, batches: &[Batch], group: Option<&Group>) -> Result<Step> {
        let mut gathered: Option<Vec<Array>> = None;
        // Sums of the loss and of the z-loss, and the targets.
        let mut sums = [0.0_f32; 3];
        for (nth, batch) in (0_u64..).zip(batches) {
            let targets = batch.target_count();
            if targets == 0 {
                continue;
            }
            let (losses, mut gradients) = gradient::loss_and_gradients(
                &self.trainable,
                &self.parameters,
                derive_seed(derive_seed(self.options.seed, self.iteration), nth),
                self.options.grad_checkpoint,
                batch,
                self.predict(),
            )?;
            if batches.len() > 1 || group.is_some() {
                let weight = Array::from_f32(targets as f32);
                for gradient in &mut gradients {
                    *gradient = gradient.multiply(&weight)?;
                }
            }
            if let Some(sum) = gathered.take() {
                for (gradient, sum) in gradients.iter_mut().zip(sum) {
                    *gradient = gradient.add(sum)?;
                }
            }
            // One batch's activations at a time.
            if batches.len() > 1 || group.is_some() {
                transforms::eval(gradients.iter().chain(&losses))?;
            }
            let weight = targets as f32;
            if batches.len() > 1 || group.is_some() {
                let [loss, z_loss] = &losses;
                let told = [
                    loss::read(loss)? * weight,
                    loss::read(z_loss)? * weight,
                    weight,
                ];
                sums.iter_mut()
                    .zip(told)
                    .for_each(|(sum, told)| *sum += told);
            } else {
                return self.finish_update(gradients, losses, targets);
            }
            gathered = Some(gradients);
        }
        let mut gradients = match gathered {
            Some(gradients) => gradients,
            // The others may have some.
            None if group.is_some() => {
                let zeros = self.parameters.iter().map(mlx_rs::ops::zeros_like);
                zeros.collect::<Result<_, _>>()?
            }
            None => return Err(no_targets()),
        };
        let mut sums = Array::from_slice(&sums, &[3]);
        if let Some(group) = group {
            sums = group.all_sum(&sums)?;
            sum_over_group(group, &mut gradients)?;
        }
        let sums = sums.to_vec_exact::<f32>()?;
        let [loss, z_loss, targets] = <[f32; 3]>::try_from(sums).unwrap_or_default();
        if targets == 0.0 {
            return Err(no_targets());
        }
        let share = Array::from_f32(1.0 / targets);
        for gradient in &mut gradients {
            *gradient = gradient.multiply(&share)?;
        }
        let losses = [loss / targets, z_loss / targets].map(Array::from_f32);
        self.finish_update(gradients, losses, targets as usize)
    }

    /// Takes over the state that rank 0 of `group` has.
    ///
    /// # Errors
    /// As [`update`](Self::update).
    pub fn follow(&mut self, group: &Group) -> Result<()> {
        let counters = [self.iteration, self.optimizer.updates()].map(u64::to_le_bytes);
        let counters = group.from_first(&counters.concat())?;
        let counter = |at: usize| -> u64 {
            let bytes = counters.get(8 * at..).and_then(|bytes| bytes.first_chunk());
            u64::from_le_bytes(bytes.copied().unwrap_or_default())
        };
        let mut arrays: Vec<Array> = self.state().cloned().collect();
        if group.rank() != 0 {
            for array in &mut arrays {
                *array = mlx_rs::ops::zeros_like(&*array)?;
            }
        }
        sum_over_group(group, &mut arrays)?;
        transforms::eval(&arrays)?;
        let mut arrays = arrays.into_iter();
        let places = self
            .parameters
            .iter_mut()
            .chain(self.optimizer.arrays_mut());
        for place in places.chain(self.average.iter_mut().flatten()) {
            if let Some(array) = arrays.next() {
                *place = array;
            }
        }
        self.iteration = counter(0);
        self.optimizer.set_updates(counter(1));
        Ok(())
    }

    fn finish_update(
        &mut self,
        mut gradients: Vec<Array>,
        [loss, z_loss]: [Array; 2],
        targets: usize,
    ) -> Result<Step> {
        self.iteration += 1;
        let learning_rate = self.options.schedule.at(self.optimizer.updates());
        let gradient_norm = self.apply(&mut gradients, learning_rate)?;
        let told = [&loss, &z_loss].into_iter().chain(&gradient_norm);
        transforms::eval(self.state().chain(told))?;
        let loss = loss::read(&loss)?;
        self.check_finite(loss)?;
        let gradient_norm = gradient_norm.as_ref().map(loss::read).transpose()?;
        // What has been trained is no number from here on, though the loss still was one.
        self.check_finite(gradient_norm.unwrap_or_default())?;
        Ok(Step {
            iteration: self.iteration,
            loss,
            z_loss: loss::read(&z_loss)?,
            targets,
            learning_rate,
            gradient_norm,
        })
    }
}

/// Replaces `gradients` by their sums over the processes of `group`, many at a time.
fn sum_over_group(group: &Group, gradients: &mut [Array]) -> Result<()> {
    let mut rest = gradients;
    while !rest.is_empty() {
        let mut size = 0;
        let count = rest.iter().take_while(|gradient| {
            let first = size == 0;
            size += gradient.size();
            first || size <= BUCKET
        });
        let count = count.count();
        let (bucket, others) = rest.split_at_mut(count);
        let flat = bucket.iter().map(|gradient| gradient.reshape(&[-1]));
        let flat = flat.collect::<Result<Vec<_>, _>>()?;
        let summed = group.all_sum(&concatenate(&flat, 0)?)?;
        let ends = bucket.iter().scan(0, |end, gradient| {
            *end += gradient.size() as i32;
            Some(*end)
        });
        let ends: Vec<i32> = ends.take(count.saturating_sub(1)).collect();
        let parts = mlx_rs::ops::split_at_indices(&summed, &ends, 0)?;
        for (gradient, part) in bucket.iter_mut().zip(parts) {
            *gradient = part.reshape(gradient.shape())?;
        }
        rest = others;
    }
    Ok(())
}
