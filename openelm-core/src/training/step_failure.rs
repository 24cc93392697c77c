//! Steps that fail: in MLX, or with numbers that are not finite.

use super::trainer::{Step, Trainer};
use crate::{
    data::batch::Batch,
    error::{Error, ErrorKind, Result},
    mlx::{Dtype, recovery::recovering},
};

impl Trainer {
    /// Runs a step, unless an earlier one has failed.
    pub(super) fn unless_failed(
        &mut self,
        step: impl FnOnce(&mut Self) -> Result<Step>,
    ) -> Result<Step> {
        self.check_usable()?;
        let step = recovering(|| step(self));
        self.failed = matches!(&step, Err(error) if error.kind() == ErrorKind::Device);
        step
    }

    /// Refuses a trainer after a step in which MLX failed.
    pub(super) fn check_usable(&self) -> Result<()> {
        if self.failed {
            return Err(Error::FailedTrainer {
                iteration: self.iteration,
            });
        }
        Ok(())
    }

    /// Refuses a `loss` that is not finite: the cause is the model before training, if it gives
    /// such numbers for the `batch` of the loss, and otherwise the training.
    pub(super) fn check_finite(&self, loss: f32, batch: Option<&Batch>) -> Result<()> {
        if loss.is_finite() {
            return Ok(());
        }
        if let Some(batch) = batch
            && let Some(error) = self.first_non_finite(batch)?
        {
            return Err(error);
        }
        let float16 = Dtype::Float16;
        if self.iteration <= 1 && self.trainable.dtype() == float16.mlx() {
            return Err(Error::Dtype {
                dtype: float16.to_string(),
                problem: "the first loss or its gradient exceeds its range (65504); use bfloat16 \
                          or float32"
                    .into(),
            });
        }
        Err(Error::Diverged {
            iteration: self.iteration,
            loss,
        })
    }

    /// The first part of the base model, or before the first step of the model with its adapter,
    /// whose output for `batch` is not finite.
    fn first_non_finite(&self, batch: &Batch) -> Result<Option<Error>> {
        let of_base = self.trainable.non_finite(None, batch)?;
        if of_base.is_some() || self.iteration > 0 {
            return Ok(of_base);
        }
        self.trainable.non_finite(Some(&self.parameters), batch)
    }
}
