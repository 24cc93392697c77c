//! The loss of a trainer on batches that it does not train on.

use super::{
    batch_arrays::BatchArrays,
    group::Group,
    loss,
    trainer::{Trainer, no_targets},
};
use crate::{
    cancel::CancelHandle,
    data::batch::Batch,
    error::Result,
    gate::pause_point,
    mlx::{or_uncompiled, recovery::recovering},
};

impl Trainer {
    /// Mean loss over the targets of `batches`, in nats.
    ///
    /// # Errors
    /// [`Error::Option`](crate::Error::Option) if there are no targets,
    /// [`Error::Mlx`](crate::Error::Mlx) if memory runs out, and as [`step`](Self::step) if the
    /// loss is not finite.
    pub fn evaluate<'b>(&self, batches: impl IntoIterator<Item = &'b Batch>) -> Result<f64> {
        let mut last = None;
        let batches = batches.into_iter().inspect(|batch| last = Some(*batch));
        match self.evaluate_sum(batches)? {
            (_, 0) => Err(no_targets()),
            (sum, count) => {
                let loss = sum / count as f64;
                self.check_finite(loss as f32, last)?;
                Ok(loss)
            }
        }
    }

    /// The sum of the loss over the targets of `batches`, in nats, and their number.
    ///
    /// # Errors
    /// [`Error::Mlx`](crate::Error::Mlx) if memory runs out.
    pub fn evaluate_sum<'b>(
        &self,
        batches: impl IntoIterator<Item = &'b Batch>,
    ) -> Result<(f64, usize)> {
        self.check_usable()?;
        let copies = self.copies.as_deref();
        let model = self.trainable.model(&self.parameters, copies, &[])?;
        let (mut sum, mut count) = (0.0, 0);
        for batch in batches {
            // The loss before was read: nothing is in progress.
            pause_point(&CancelHandle::default(), || Ok(()))?;
            if batch.target_count() > 0 {
                let loss = || {
                    let arrays = BatchArrays::new(batch);
                    let head = self.trainable.trains_head();
                    let dtype = self.trainable.dtype();
                    loss::read(&loss::cross_entropy(&model, &arrays, head, dtype)?)
                };
                let loss = recovering(|| or_uncompiled(loss))?;
                sum += f64::from(loss) * batch.target_count() as f64;
                count += batch.target_count();
            }
        }
        Ok((sum, count))
    }

    /// [`evaluate_sum`](Self::evaluate_sum) over the `batches` of all processes of `group`, which
    /// must all call it.
    ///
    /// # Errors
    /// As [`evaluate_sum`](Self::evaluate_sum); without a group, as [`step`](Self::step) if a loss
    /// is not finite.
    pub(crate) fn evaluate_sum_of(
        &self,
        batches: impl Iterator<Item = Batch>,
        group: Option<&Group>,
    ) -> Result<(f64, usize)> {
        if let Some(sharding) = &self.sharding {
            return self.sharded_evaluate_sum(batches, sharding);
        }
        let (mut nats, mut targets) = (0.0, 0);
        for batch in batches {
            let (sum, count) = self.evaluate_sum([&batch])?;
            // In a group, all processes first add up their sums.
            if group.is_none() {
                self.check_finite(sum as f32, Some(&batch))?;
            }
            nats += sum;
            targets += count;
        }
        if let Some(group) = group {
            let mut sums = [nats as f32, targets as f32];
            group.sum_numbers(&mut sums)?;
            return Ok((f64::from(sums[0]), sums[1] as usize));
        }
        Ok((nats, targets))
    }

    /// The summed log-probability of each row's targets. Before the first step, this is the
    /// reference of preference training.
    ///
    /// # Errors
    /// [`Error::Mlx`](crate::Error::Mlx) if memory runs out, and as [`step`](Self::step) if a
    /// log-probability is not finite.
    pub fn log_probabilities(&self, batch: &Batch) -> Result<Vec<f32>> {
        self.check_usable()?;
        let copies = self.copies.as_deref();
        let model = self.trainable.model(&self.parameters, copies, &[])?;
        let sums = || {
            let head = self.trainable.trains_head();
            let sums = loss::row_log_probabilities(&model, batch, head)?;
            Ok(sums.to_vec_exact::<f32>()?)
        };
        let sums = recovering(|| or_uncompiled(sums))?;
        for sum in &sums {
            self.check_finite(*sum, Some(batch))?;
        }
        Ok(sums)
    }
}
