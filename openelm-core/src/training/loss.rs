//! The losses: cross-entropy with CoreNet's z-loss and label smoothing
//! (`cross_entropy.py`), and DPO's losses on preferences.
//!
//! Shapes: `B` rows, `L` length, `N` targets, `D` width, `V` vocabulary.

use mlx_rs::{
    Array, Dtype,
    error::Exception,
    ops::{
        arange, concatenate,
        indexing::{TryIndexOp, scatter_add_single, take_along_axis},
        logsumexp_axis, matmul, power, select, sum,
    },
    stop_gradient,
    transforms::fallible_vjp,
};

use super::exception::into_exception;
use crate::{
    data::batch::Batch,
    error::{Error, Result},
    mlx::Device,
    model::{Linear, Model},
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
}

/// The loss of predictions.
#[derive(Debug, Clone, Copy)]
pub(super) enum Objective<'a> {
    /// Cross-entropy plus `z_loss` times the mean of `logsumexp²`; the fraction `label_smoothing`
    /// of each target's weight is spread over the vocabulary.
    Predict { z_loss: f32, label_smoothing: f32 },
    /// DPO.
    Prefer(&'a Preference),
}

impl Objective<'_> {
    /// Cross-entropy without z-loss and label smoothing.
    pub(super) const PLAIN: Self = Self::Predict {
        z_loss: 0.0,
        label_smoothing: 0.0,
    };
}

/// The targets of a batch, as arrays.
pub(super) struct Targets {
    /// Indices into `[B·L]`, u32 `[N]`.
    places: Array,
    /// Token ids, u32 `[N]`.
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

/// The mask `[B, 1, L, L]` that is added to the attention scores to separate the documents of a
/// row; `None` if each row holds one document, for which the causal mask suffices.
pub(super) fn mask(batch: &Batch, dtype: Dtype) -> Result<Option<Array>> {
    if batch.documents.is_empty() {
        return Ok(None);
    }
    let (rows, length) = (batch.batch as i32, batch.length as i32);
    let documents = Array::from_slice(&batch.documents, &[rows, 1, length, 1]);
    let same = documents.eq(documents.swap_axes(-1, -2)?)?;
    let positions = arange::<_, i32>(None, length, None)?;
    let before = positions.expand_dims(1)?.ge(&positions)?;
    // Low enough that its exponential is zero, also in 16 bits.
    let hidden = Array::from_f32(-3e4);
    let added = select(&same.logical_and(before)?, Array::from_f32(0.0), hidden)?;
    Ok(Some(added.as_dtype(dtype)?))
}

/// Mean cross-entropy of the targets, f32 scalar.
pub(super) fn cross_entropy(model: &Model, batch: &Batch, trains_head: bool) -> Result<Array> {
    let mask = mask(batch, model.dtype().mlx())?;
    let hidden = model.hidden_of(&inputs(batch), mask.as_ref())?;
    let [loss, _] = of_hidden(model, &hidden, batch, trains_head, Objective::PLAIN)?;
    Ok(loss)
}

/// The loss for final hidden states `[B, L, D]`, and its z-loss part: f32 scalars.
pub(super) fn of_hidden(
    model: &Model,
    hidden: &Array,
    batch: &Batch,
    trains_head: bool,
    objective: Objective<'_>,
) -> Result<[Array; 2]> {
    let none = Array::from_f32(0.0);
    match objective {
        Objective::Prefer(preference) => {
            let all = target_log_probabilities(model, hidden, batch, trains_head)?;
            Ok([preferred(&row_sums(&all, batch)?, preference)?, none])
        }
        Objective::Predict {
            z_loss,
            label_smoothing,
        } => {
            let whole = model.head().plain_weight().filter(|_| trains_head);
            if let Some(matrix) = whole {
                let (rows, targets) = target_rows(hidden, batch)?;
                let head = TrainedHead {
                    matrix,
                    z_loss,
                    label_smoothing,
                };
                return head.loss(&rows, &targets.ids);
            }
            if z_loss != 0.0 || label_smoothing != 0.0 {
                return Err(Error::Option {
                    option: "z_loss",
                    problem: "z-loss and label smoothing need a head that is trained whole".into(),
                });
            }
            let all = target_log_probabilities(model, hidden, batch, trains_head)?;
            Ok([all.mean(false)?.negative()?, none])
        }
    }
}

/// Sums of the targets' log-probabilities per row, f32 `[B]`.
pub(super) fn row_log_probabilities(
    model: &Model,
    batch: &Batch,
    trains_head: bool,
) -> Result<Array> {
    let mask = mask(batch, model.dtype().mlx())?;
    let hidden = model.hidden_of(&inputs(batch), mask.as_ref())?;
    let all = target_log_probabilities(model, &hidden, batch, trains_head)?;
    row_sums(&all, batch)
}

/// The value of an f32 scalar.
pub(super) fn read(scalar: &Array) -> Result<f32> {
    Ok(scalar.try_item_exact::<f32>()?)
}

fn target_log_probabilities(
    model: &Model,
    hidden: &Array,
    batch: &Batch,
    trains_head: bool,
) -> Result<Array> {
    let (rows, targets) = target_rows(hidden, batch)?;
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

/// The hidden states `[N, D]` that predict the batch's targets: only these pass through the head,
/// the most expensive matrix.
fn target_rows(hidden: &Array, batch: &Batch) -> Result<(Array, Targets)> {
    let targets = Targets::new(batch);
    let rows = hidden.reshape(&[-1, hidden.dim(2)])?;
    let rows = if batch.target_count() == batch.mask.len() {
        rows
    } else {
        rows.take_axis(&targets.places, 0)?
    };
    Ok((rows, targets))
}

/// Number of targets whose logits exist at the same time.
const CHUNK: i32 = 64;

/// Log-probabilities f32 `[N]` of `ids` `[N]` after `rows` `[N, D]`, for a frozen head. The
/// gradient is computed in the forward pass, so that no logits are stored and no exponential is
/// computed twice: for logits `z` it is `onehot - softmax(z)`, multiplied by the head.
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
    let by_rows = by_rows.into_iter().next();
    let by_rows = by_rows.ok_or_else(|| Exception::custom("the head gave no gradient"))?;
    // Zero, with this gradient.
    let change = rows.subtract(&fixed)?.multiply(stop_gradient(by_rows)?)?;
    let change = change.as_dtype(Dtype::Float32)?.sum_axis(-1, false)?;
    Ok(stop_gradient(values)?.squeeze_axes(&[-1])?.add(change)?)
}

/// The loss of a trained head, computed some rows at a time together with its gradient, so that
/// not all logits are stored and no exponential is computed twice.
///
/// For a row's logits `z`, `s = logsumexp(z)`, smoothing `ε` and z-loss `c` the loss is
/// `s - (1-ε)·z_target - ε·mean(z) + c·s²`; its gradient with respect to `z` is
/// `(1 + 2·c·s)·softmax(z) - (1-ε)·onehot - ε/V`.
struct TrainedHead<'a> {
    /// `[V, D]`.
    matrix: &'a Array,
    z_loss: f32,
    label_smoothing: f32,
}

/// The loss and gradients of a part of the rows.
struct HeadPart {
    /// Sums of the cross-entropy and of `s²`, f32 scalars.
    sums: [Array; 2],
    /// Gradient of the sum with respect to the rows `[n, D]`.
    by_rows: Array,
    /// Gradient with respect to the matrix `[V, D]`, without the targets' part.
    by_matrix: Array,
}

impl TrainedHead<'_> {
    /// The mean loss over `rows` `[N, D]` with targets `ids` `[N]`, and its z-loss part.
    fn loss(&self, rows: &Array, ids: &Array) -> Result<[Array; 2]> {
        let (count, vocab) = (rows.dim(0), self.matrix.dim(0));
        let fixed = stop_gradient(rows)?;
        let matrix = stop_gradient(self.matrix)?;
        let at_a_time = (LOGITS / vocab.max(1)).clamp(16, count.max(16));
        let parts = (0..count).step_by(at_a_time as usize).map(|start| {
            let end = (start + at_a_time).min(count);
            let rows = fixed.try_index((start..end, ..))?;
            self.part(&rows, &matrix, &ids.try_index(start..end)?)
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;

        let total = |of: usize| -> Result<Array> {
            let mut total = Array::from_f32(0.0);
            for part in &parts {
                total = total.add(&part.sums[of])?;
            }
            Ok(total)
        };
        let share = Array::from_f32(1.0 / count as f32);
        let entropy = total(0)?.multiply(&share)?;
        let z_loss = total(1)?.multiply(Array::from_f32(self.z_loss / count as f32))?;

        let by_rows: Vec<&Array> = parts.iter().map(|part| &part.by_rows).collect();
        let by_rows = concatenate(&by_rows, 0)?;
        let mut by_matrix = None;
        for part in &parts {
            by_matrix = Some(match by_matrix {
                None => part.by_matrix.clone(),
                Some(sum) => part.by_matrix.add(sum)?,
            });
        }
        let Some(by_matrix) = by_matrix else {
            return Err(Exception::custom("no targets").into());
        };
        // The targets' part of the gradient: -(1-ε) times the hidden state, in the target's row.
        let kept = Array::from_f32(self.label_smoothing - 1.0);
        let pulls = fixed.as_dtype(Dtype::Float32)?.multiply(kept)?;
        let by_matrix = scatter_add_single(&by_matrix, ids, &pulls.expand_dims(1)?, 0)?;

        // Zero, with these gradients.
        let carry = |x: &Array, fixed: &Array, gradient: Array| -> Result<Array> {
            let gradient = gradient.as_dtype(x.dtype())?;
            let change = x.subtract(fixed)?.multiply(stop_gradient(gradient)?)?;
            Ok(sum(&change.as_dtype(Dtype::Float32)?, false)?)
        };
        let carried = carry(rows, &fixed, by_rows)?
            .add(carry(self.matrix, &matrix, by_matrix)?)?
            .multiply(share)?;
        let loss = stop_gradient(entropy.add(&z_loss)?)?.add(carried)?;
        Ok([loss, stop_gradient(z_loss)?])
    }

    fn part(&self, rows: &Array, matrix: &Array, ids: &Array) -> Result<HeadPart> {
        let logits = matmul(rows, matrix.t())?.as_dtype(Dtype::Float32)?;
        let largest = logits.max_axis(-1, true)?;
        let exponentials = exp(&logits.subtract(&largest)?)?;
        let sums = exponentials.sum_axis(-1, true)?;
        let logsumexp = sums.log()?.add(&largest)?;
        let at_target = take_along_axis(&logits, ids.expand_dims(1)?, -1)?;

        let smoothing = self.label_smoothing;
        let kept = Array::from_f32(1.0 - smoothing);
        let mut predicted = at_target.multiply(&kept)?;
        // Gradient with respect to the logits, without the targets' part.
        let grown = logsumexp.multiply(Array::from_f32(2.0 * self.z_loss))?;
        let factor = grown.add(Array::from_f32(1.0))?.divide(&sums)?;
        let mut by_logits = exponentials.multiply(factor)?;
        if smoothing > 0.0 {
            let mean = logits.mean_axis(-1, true)?;
            predicted = predicted.add(mean.multiply(Array::from_f32(smoothing))?)?;
            let even = Array::from_f32(smoothing / logits.dim(-1) as f32);
            by_logits = by_logits.subtract(even)?;
        }
        let by_logits = by_logits.as_dtype(rows.dtype())?;
        let targets = matrix.take_axis(ids, 0)?.as_dtype(Dtype::Float32)?;
        Ok(HeadPart {
            sums: [
                sum(&logsumexp.subtract(predicted)?, false)?,
                sum(&logsumexp.square()?, false)?,
            ],
            by_rows: matmul(&by_logits, matrix)?
                .as_dtype(Dtype::Float32)?
                .subtract(targets.multiply(kept)?)?,
            by_matrix: matmul(by_logits.t(), rows)?.as_dtype(Dtype::Float32)?,
        })
    }
}

/// Number of logits of a trained head that exist at the same time.
const LOGITS: i32 = 1 << 20;

/// `e^x`; on a CPU MLX's `exp` takes three times as long as its `power`.
fn exp(x: &Array) -> Result<Array> {
    Ok(match Device::current()? {
        Device::Cpu => power(Array::from_f32(std::f32::consts::E), x)?,
        Device::Gpu => x.exp()?,
    })
}

/// Sums of the targets' values per row, `[N]` to `[B]`.
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

/// Mean loss over pairs, for the policy's sums f32 `[2·pairs]`, the chosen rows first.
fn preferred(policy: &Array, preference: &Preference) -> Result<Array> {
    let reference = Array::from_slice(&preference.reference, &[preference.reference.len() as i32]);
    let gained = policy.subtract(reference)?;
    let pairs = gained.dim(0) / 2;
    let delta = gained
        .try_index(..pairs)?
        .subtract(gained.try_index(pairs..)?)?;
    let margin = delta.multiply(Array::from_f32(preference.beta))?;
    let losses = match preference.loss {
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
