//! The losses: cross-entropy with CoreNet's z-loss and label smoothing
//! (`cross_entropy.py`), and DPO's losses on preferences.
//!
//! Shapes: `B` rows, `L` length, `N` targets, `D` width, `V` vocabulary.

use mlx_rs::{
    Array, Dtype,
    ops::{indexing::take_along_axis, logsumexp_axis, sum},
    stop_gradient,
};

use super::{
    batch_arrays::BatchArrays,
    frozen_head::FrozenHead,
    preference::{PreferenceArrays, row_sums},
    trained_head::TrainedHead,
};
use crate::{
    data::batch::Batch,
    error::{Error, Result},
    mlx::Device,
    model::Model,
};

/// The loss of predictions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Objective<'a> {
    /// Cross-entropy plus `z_loss` times the mean of `logsumexp²`; the fraction `label_smoothing`
    /// of each target's weight is spread over the vocabulary.
    Predict { z_loss: f32, label_smoothing: f32 },
    /// DPO on the rows of a batch.
    Prefer(&'a PreferenceArrays),
}

impl Objective<'_> {
    /// Cross-entropy without z-loss and label smoothing.
    pub(super) const PLAIN: Self = Self::Predict {
        z_loss: 0.0,
        label_smoothing: 0.0,
    };
}

/// The loss as f32 scalars.
pub(super) struct Loss {
    /// Mean over the targets, in nats.
    pub(super) value: Array,
    /// The part of `value` that is z-loss.
    pub(super) z_loss: Array,
    /// A scalar of any value that has the loss's gradient: heads compute their gradient together
    /// with the loss, not from it.
    pub(super) differentiable: Array,
}

/// Mean cross-entropy of the targets, f32 scalar, computed in `dtype`.
pub(super) fn cross_entropy(
    model: &Model,
    batch: &BatchArrays,
    trains_head: bool,
    dtype: Dtype,
) -> Result<Array> {
    let mask = batch.mask(dtype)?;
    let hidden = model.hidden_of(&batch.tokens, mask.as_ref())?;
    Ok(of_hidden(model, &hidden, batch, trains_head, Objective::PLAIN)?.value)
}

/// The loss for final hidden states `[B, L, D]`.
pub(super) fn of_hidden(
    model: &Model,
    hidden: &Array,
    batch: &BatchArrays,
    trains_head: bool,
    objective: Objective<'_>,
) -> Result<Loss> {
    match objective {
        Objective::Prefer(preference) => {
            let all = target_log_probabilities(model, hidden, batch, trains_head)?;
            Ok(Loss::plain(preference.mean_loss(&all)?))
        }
        Objective::Predict {
            z_loss,
            label_smoothing,
        } => {
            let mut rows = batch.target_rows(hidden)?;
            let whole = model.head().plain_weight().filter(|_| trains_head);
            if let Some(matrix) = whole {
                rows = rows.as_dtype(matrix.dtype())?;
                let head = TrainedHead {
                    matrix,
                    z_loss,
                    label_smoothing,
                    device: Device::current()?,
                };
                return head.loss(&rows, batch);
            }
            if label_smoothing != 0.0 {
                let problem = "needs a head that is trained whole, found a frozen or adapted head";
                return Err(Error::option("label_smoothing", problem));
            }
            let share = Array::from_f32(1.0).divide(&batch.count)?;
            let mean = |all: &Array| -> Result<Array> {
                let sum = sum(&batch.without_padding(all)?, false)?;
                Ok(sum.multiply(&share)?)
            };
            let weight = Array::from_f32(z_loss);
            if trains_head {
                let (all, logsumexp) = adapted_head(model, &rows, &batch.ids)?;
                let entropy = mean(&all)?.negative()?;
                if z_loss == 0.0 {
                    return Ok(Loss::plain(entropy));
                }
                let z_loss = mean(&logsumexp.square()?)?.multiply(weight)?;
                let value = entropy.add(&z_loss)?;
                return Ok(Loss {
                    differentiable: value.clone(),
                    value,
                    z_loss,
                });
            }
            let frozen = FrozenHead::new(model.head(), z_loss)?.predict(&rows, batch)?;
            let change = rows.multiply(stop_gradient(&frozen.by_rows)?)?;
            let change = sum(
                &change.as_dtype(Dtype::Float32)?.sum_axis(-1, false)?,
                false,
            )?;
            let entropy = mean(&frozen.values)?.negative()?;
            let (value, z_loss) = match &frozen.squares {
                None => (entropy, Array::from_f32(0.0)),
                Some(squares) => {
                    let z_loss = mean(squares)?.multiply(weight)?;
                    (entropy.add(&z_loss)?, z_loss)
                }
            };
            Ok(Loss {
                value,
                z_loss,
                differentiable: change.multiply(share)?.negative()?,
            })
        }
    }
}

impl Loss {
    /// A loss that MLX differentiates.
    fn plain(loss: Array) -> Self {
        Self {
            differentiable: loss.clone(),
            value: loss,
            z_loss: Array::from_f32(0.0),
        }
    }
}

/// Sums of the targets' log-probabilities per row of `batch`, f32 `[B]`.
pub(super) fn row_log_probabilities(
    model: &Model,
    batch: &Batch,
    trains_head: bool,
) -> Result<Array> {
    let arrays = BatchArrays::new(batch);
    let mask = arrays.mask(model.dtype().mlx())?;
    let hidden = model.hidden_of(&arrays.tokens, mask.as_ref())?;
    let all = target_log_probabilities(model, &hidden, &arrays, trains_head)?;
    row_sums(&all, &arrays.row_numbers(batch), batch.batch as i32)
}

/// The value of an f32 scalar.
pub(super) fn read(scalar: &Array) -> Result<f32> {
    Ok(scalar.try_item_exact::<f32>()?)
}

/// Log-probabilities of the targets, f32 `[N]`, for any function of them.
fn target_log_probabilities(
    model: &Model,
    hidden: &Array,
    batch: &BatchArrays,
    trains_head: bool,
) -> Result<Array> {
    let rows = batch.target_rows(hidden)?;
    if trains_head {
        return Ok(adapted_head(model, &rows, &batch.ids)?.0);
    }
    let frozen = FrozenHead::new(model.head(), 0.0)?.predict(&rows, batch)?;
    // Zero, with the gradient of the log-probabilities.
    let fixed = stop_gradient(&rows)?;
    let change = rows
        .subtract(&fixed)?
        .multiply(stop_gradient(&frozen.by_rows)?)?;
    let change = change.as_dtype(Dtype::Float32)?.sum_axis(-1, false)?;
    Ok(stop_gradient(&frozen.values)?.add(change)?)
}

/// Log-probabilities f32 `[N]` of `ids` `[N]` after `rows` `[N, D]`, and `logsumexp` `[N]` of the
/// logits, for a head with adapters.
fn adapted_head(model: &Model, rows: &Array, ids: &Array) -> Result<(Array, Array)> {
    let logits = model.head().forward(rows)?.as_dtype(Dtype::Float32)?;
    let at_target = take_along_axis(&logits, ids.expand_dims(1)?, -1)?;
    let logsumexp = logsumexp_axis(&logits, -1, false)?;
    let values = at_target.squeeze_axes(&[-1])?.subtract(&logsumexp)?;
    Ok((values, logsumexp))
}
