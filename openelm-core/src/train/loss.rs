//! What training makes smaller: cross-entropy, and DPO's losses on preferences.
//!
//! Shapes: `B` rows, `L` length, `N` targets, `D` width, `V` vocabulary.

use mlx_rs::{
    Array, Dtype,
    ops::{
        arange, concatenate,
        indexing::{TryIndexOp, take_along_axis},
        logsumexp_axis, power, sum,
    },
    stop_gradient,
    transforms::fallible_vjp,
};

use super::gradient::into_exception;
use crate::{
    batches::Batch,
    dtype::Device,
    error::{Error, Result},
    linear::Linear,
    model::Model,
};

/// Which loss makes one answer preferred to another; `Δ` is how much more the model prefers the
/// chosen answer than the reference does, in nats.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PreferenceLoss {
    /// DPO: `-log σ(β·Δ)` (arXiv 2305.18290).
    Sigmoid,
    /// `max(0, 1 - β·Δ)`: OpenELM-Instruct's at three of its four sizes
    /// (`openelm-instruct.yaml`).
    Hinge,
}

/// What a preference step needs besides its batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Preference {
    /// The loss.
    pub loss: PreferenceLoss,
    /// β: how strongly the model is held to the reference. OpenELM-Instruct: 0.01.
    pub beta: f32,
    /// The reference's summed log-probability of each row's targets, as
    /// [`Trainer::log_probabilities`](super::Trainer::log_probabilities) gave them.
    pub reference: Vec<f32>,
}

impl Preference {
    pub(super) fn check(&self, batch: &Batch) -> Result<()> {
        let wrong = |problem: String| Error::Option {
            option: "preference",
            problem,
        };
        if self.beta.is_nan() || self.beta <= 0.0 {
            return Err(wrong(format!(
                "beta: expected above 0, found {}",
                self.beta
            )));
        }
        if !batch.batch.is_multiple_of(2) || self.reference.len() != batch.batch {
            return Err(wrong(format!(
                "expected one reference for each of an even number of rows; found {} for {}",
                self.reference.len(),
                batch.batch
            )));
        }
        Ok(())
    }
}

/// Where a batch's targets are, as arrays.
pub(super) struct Targets {
    /// u32 `[N]`: their places in `[B·L]`.
    places: Array,
    /// u32 `[N]`.
    ids: Array,
}

impl Targets {
    fn new(batch: &Batch) -> Self {
        let places = batch.mask.iter().enumerate().filter(|(_, real)| **real);
        let places: Vec<u32> = places.map(|(place, _)| place as u32).collect();
        let ids = places
            .iter()
            .map(|&p| batch.targets.get(p as usize).copied());
        let ids: Vec<u32> = ids.map(Option::unwrap_or_default).collect();
        let shape = [places.len() as i32];
        Self {
            places: Array::from_slice(&places, &shape),
            ids: Array::from_slice(&ids, &shape),
        }
    }
}

/// The batch's inputs, u32 `[B, L]`.
pub(super) fn inputs(batch: &Batch) -> Array {
    Array::from_slice(&batch.inputs, &[batch.batch as i32, batch.length as i32])
}

/// Mean cross-entropy of the targets, f32 scalar.
pub(super) fn cross_entropy(model: &Model, batch: &Batch, trains_head: bool) -> Result<Array> {
    let hidden = model.hidden_of(&inputs(batch))?;
    of_hidden(model, &hidden, batch, trains_head, None)
}

/// The loss by the final hidden states `[B, L, D]`, f32 scalar.
pub(super) fn of_hidden(
    model: &Model,
    hidden: &Array,
    batch: &Batch,
    trains_head: bool,
    preference: Option<&Preference>,
) -> Result<Array> {
    let log_probabilities = target_log_probabilities(model, hidden, batch, trains_head)?;
    match preference {
        None => Ok(log_probabilities.mean(false)?.negative()?),
        Some(preference) => preferred(&row_sums(&log_probabilities, batch)?, preference),
    }
}

/// Sums of the targets' log-probabilities by row, f32 `[B]`.
pub(super) fn row_log_probabilities(
    model: &Model,
    batch: &Batch,
    trains_head: bool,
) -> Result<Array> {
    let hidden = model.hidden_of(&inputs(batch))?;
    let all = target_log_probabilities(model, &hidden, batch, trains_head)?;
    row_sums(&all, batch)
}

/// An f32 scalar's value.
pub(super) fn read(scalar: &Array) -> Result<f32> {
    Ok(scalar.try_item_exact::<f32>()?)
}

fn target_log_probabilities(
    model: &Model,
    hidden: &Array,
    batch: &Batch,
    trains_head: bool,
) -> Result<Array> {
    let targets = Targets::new(batch);
    // Only what is a target goes through the head, the costliest matrix.
    let rows = hidden.reshape(&[-1, hidden.dim(2)])?;
    let rows = match batch.target_count() == batch.mask.len() {
        true => rows,
        false => rows.take_axis(&targets.places, 0)?,
    };
    if trains_head {
        let logits = model.head().forward(&rows)?.as_dtype(Dtype::Float32)?;
        let at_target = take_along_axis(&logits, targets.ids.expand_dims(1)?, -1)?;
        return Ok(at_target
            .squeeze_axes(&[-1])?
            .subtract(logsumexp_axis(&logits, -1, false)?)?);
    }
    let count = targets.ids.dim(0);
    let parts = (0..count).step_by(CHUNK as usize).map(|start| {
        let end = (start + CHUNK).min(count);
        let rows = rows.try_index((start..end, ..))?;
        frozen_head(model.head(), &rows, &targets.ids.try_index(start..end)?)
    });
    let parts = parts.collect::<Result<Vec<_>>>()?;
    Ok(concatenate(&parts, 0)?)
}

/// Targets whose logits exist at a time.
const CHUNK: i32 = 64;

/// Log-probabilities f32 `[N]` of `ids` `[N]` after `rows` `[N, D]`, by a head that is not trained.
/// The gradient is worked out along with them, so that no logits are kept, and no exponential is
/// taken twice: for logits `z` it is `onehot - softmax(z)`, through the head.
fn frozen_head(head: &Linear, rows: &Array, ids: &Array) -> Result<Array> {
    let fixed = stop_gradient(rows)?;
    let logits = head.forward(&fixed)?.as_dtype(Dtype::Float32)?;
    let largest = logits.max_axis(-1, true)?;
    let exponentials = exp(&logits.subtract(&largest)?)?;
    let sums = exponentials.sum_axis(-1, true)?;
    let ids = ids.expand_dims(1)?;
    let at_target = take_along_axis(&logits, &ids, -1)?;
    let values = at_target.subtract(&largest)?.subtract(sums.log()?)?;

    let softmax = exponentials.divide(&sums)?;
    let vocabulary = arange::<_, u32>(None, logits.dim(-1), None)?;
    let onehot = vocabulary.eq(&ids)?.as_dtype(Dtype::Float32)?;
    let by_logits = onehot.subtract(softmax)?.as_dtype(rows.dtype())?;
    let through = |x: &[Array]| match x {
        [x] => Ok(vec![head.forward(x).map_err(into_exception)?]),
        _ => Ok(Vec::new()),
    };
    let (_, by_rows) = fallible_vjp(through, std::slice::from_ref(&fixed), &[by_logits])?;
    let Some(by_rows) = by_rows.into_iter().next() else {
        return Ok(values);
    };
    // Zero, with that gradient.
    let change = rows.subtract(&fixed)?.multiply(stop_gradient(by_rows)?)?;
    let change = change.as_dtype(Dtype::Float32)?.sum_axis(-1, false)?;
    Ok(stop_gradient(values)?.squeeze_axes(&[-1])?.add(change)?)
}

/// `e^x`; on a CPU MLX's `exp` takes three times as long as its `power`.
fn exp(x: &Array) -> Result<Array> {
    Ok(match Device::current()? {
        Device::Cpu => power(Array::from_f32(std::f32::consts::E), x)?,
        Device::Gpu => x.exp()?,
    })
}

/// Sums by row of what belongs to the targets, `[N]` to `[B]`.
fn row_sums(values: &Array, batch: &Batch) -> Result<Array> {
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

/// Mean loss over pairs by the policy's sums f32 `[2·pairs]`, the chosen rows first.
fn preferred(policy: &Array, preference: &Preference) -> Result<Array> {
    let reference = Array::from_slice(&preference.reference, &[preference.reference.len() as i32]);
    let gained = policy.subtract(reference)?;
    let pairs = gained.dim(0) / 2;
    let delta = gained
        .try_index(..pairs)?
        .subtract(gained.try_index(pairs..)?)?;
    let margin = delta.multiply(Array::from_f32(preference.beta))?;
    let losses = match preference.loss {
        // log(1 + e^-x), which does not overflow.
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
