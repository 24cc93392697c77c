//! DPO's losses on preferences (arXiv 2305.18290).

use mlx_rs::{
    Array,
    ops::{concatenate, indexing::TryIndexOp, sum},
};

use crate::{
    data::batch::Batch,
    error::{Error, Result},
};

/// The loss of preferences. `Δ` is the increase of the log-probability margin of the chosen answer
/// over the reference's margin, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreferenceLoss {
    /// DPO: `-log σ(β·Δ)` (arXiv 2305.18290).
    Sigmoid,
    /// `max(0, 1 - β·Δ)`, as in three of the four sizes of OpenELM-Instruct
    /// (`openelm-instruct.yaml`).
    Hinge,
}

/// The inputs of a preference step in addition to its batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// The loss.
    pub loss: PreferenceLoss,
    /// β: weight of the reference model. OpenELM-Instruct: 0.01.
    pub beta: f32,
    /// The reference's summed log-probability of each row's targets, from
    /// [`Trainer::log_probabilities`](crate::training::trainer::Trainer::log_probabilities).
    pub reference: Vec<f32>,
}

impl Preference {
    pub(super) fn check(&self, batch: &Batch) -> Result<()> {
        let wrong = |option, problem: String| Error::Option { option, problem };
        if self.beta.is_nan() || self.beta <= 0.0 {
            let problem = format!("expected above 0, found {}", self.beta);
            return Err(wrong("beta", problem));
        }
        if !batch.batch.is_multiple_of(2) || self.reference.len() != batch.batch {
            return Err(wrong(
                "reference",
                format!(
                    "expected one reference for each of an even number of rows; found {} for {}",
                    self.reference.len(),
                    batch.batch
                ),
            ));
        }
        Ok(())
    }

    /// Mean loss over pairs, for the policy's sums f32 `[2·pairs]`, the chosen rows first.
    pub(super) fn mean_loss(&self, policy: &Array) -> Result<Array> {
        let reference = Array::from_slice(&self.reference, &[self.reference.len() as i32]);
        let gained = policy.subtract(reference)?;
        let pairs = gained.dim(0) / 2;
        let delta = gained
            .try_index(..pairs)?
            .subtract(gained.try_index(pairs..)?)?;
        let margin = delta.multiply(Array::from_f32(self.beta))?;
        let losses = match self.loss {
            // log(1 + e^-x) in a form that does not overflow.
            PreferenceLoss::Sigmoid => {
                mlx_rs::ops::logaddexp(Array::from_f32(0.0), margin.negative()?)?
            }
            PreferenceLoss::Hinge => {
                let short = Array::from_f32(1.0).subtract(margin)?;
                mlx_rs::ops::maximum(Array::from_f32(0.0), short)?
            }
        };
        Ok(losses.mean(false)?)
    }
}

/// Sums of the values of the targets of `batch` per row, `[N]` to `[B]`.
pub(super) fn row_sums(values: &Array, batch: &Batch) -> Result<Array> {
    let mut start = 0;
    let rows = batch.mask.chunks(batch.length.max(1)).map(|mask| {
        let count = mask.iter().filter(|real| **real).count() as i32;
        let end = start + count;
        let row = values.try_index(start..end)?;
        start = end;
        Ok(sum(&row, true)?)
    });
    let rows = rows.collect::<Result<Vec<_>>>()?;
    Ok(concatenate(&rows, 0)?)
}
