//! DPO's losses on preferences (arXiv 2305.18290).

use mlx_rs::{
    Array,
    ops::{arange, indexing::TryIndexOp, select},
};

use super::batch_arrays::BatchArrays;
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

    /// The arrays for `batch`, whose arrays are `arrays`.
    pub(super) fn arrays(&self, batch: &Batch, arrays: &BatchArrays) -> PreferenceArrays {
        PreferenceArrays {
            loss: self.loss,
            beta: Array::from_f32(self.beta),
            reference: Array::from_slice(&self.reference, &[self.reference.len() as i32]),
            rows: arrays.row_numbers(batch),
        }
    }
}

/// A preference and its batch as arrays, which a training step takes as arguments.
#[derive(Debug, Clone)]
pub(super) struct PreferenceArrays {
    pub(super) loss: PreferenceLoss,
    /// β, f32 scalar.
    pub(super) beta: Array,
    /// The reference's log-probability of each row, f32 `[B]`.
    pub(super) reference: Array,
    /// [`BatchArrays::row_numbers`].
    pub(super) rows: Array,
}

impl PreferenceArrays {
    /// Mean loss over pairs, for the policy's log-probabilities f32 `[N]`. The first half of the
    /// rows is chosen.
    pub(super) fn mean_loss(&self, policy: &Array) -> Result<Array> {
        let policy = row_sums(policy, &self.rows, self.reference.dim(0))?;
        let gained = policy.subtract(&self.reference)?;
        let pairs = gained.dim(0) / 2;
        let delta = gained
            .try_index(..pairs)?
            .subtract(gained.try_index(pairs..)?)?;
        let margin = delta.multiply(&self.beta)?;
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

/// Sums of `values` f32 `[N]` in each of `count` rows, `[B]`; `rows` u32 `[N]` has their rows.
pub(super) fn row_sums(values: &Array, rows: &Array, count: i32) -> Result<Array> {
    let numbers = arange::<_, u32>(None, count, None)?.expand_dims(1)?;
    let own = select(&numbers.eq(rows)?, values, Array::from_f32(0.0))?;
    Ok(own.sum_axis(-1, false)?)
}
