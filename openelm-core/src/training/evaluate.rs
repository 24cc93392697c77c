//! The loss of a trainer on batches that it does not train on.

use super::{
    batch_arrays::BatchArrays,
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
        let model = self.trainable.model(&self.parameters, &[])?;
        let (mut sum, mut count) = (0.0, 0);
        for batch in batches {
            // The loss before was read: nothing is in progress.
            pause_point(&CancelHandle::default(), || Ok(()))?;
            if batch.target_count() > 0 {
                let loss = || {
                    let arrays = BatchArrays::new(batch);
                    let head = self.trainable.trains_head();
                    loss::read(&loss::cross_entropy(&model, &arrays, head)?)
                };
                let loss = recovering(|| or_uncompiled(loss))?;
                sum += f64::from(loss) * batch.target_count() as f64;
                count += batch.target_count();
            }
        }
        Ok((sum, count))
    }

    /// The summed log-probability of each row's targets. Before the first step, this is the
    /// reference of preference training.
    ///
    /// # Errors
    /// [`Error::Mlx`](crate::Error::Mlx) if memory runs out, and as [`step`](Self::step) if a
    /// log-probability is not finite.
    pub fn log_probabilities(&self, batch: &Batch) -> Result<Vec<f32>> {
        self.check_usable()?;
        let model = self.trainable.model(&self.parameters, &[])?;
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
