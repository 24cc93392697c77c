//! The arrays of a batch, which a training step takes as arguments.
//!
//! Shapes: `B` rows, `L` length, `N` targets.

use mlx_rs::{
    Array, Dtype,
    ops::{arange, select},
};

use crate::{data::batch::Batch, error::Result};

/// A batch as arrays. No number in them is a constant of the step: a compiled step is used for all
/// batches of the same shapes.
#[derive(Debug, Clone)]
pub(super) struct BatchArrays {
    /// Input ids, u32 `[B, L]`.
    pub(super) tokens: Array,
    /// Target ids, u32 `[N]`.
    pub(super) ids: Array,
    /// Number of targets, f32 scalar.
    pub(super) count: Array,
    /// Index of each position's document in its row, u32 `[B, L]`; `None` if each row is one
    /// document.
    pub(super) documents: Option<Array>,
    /// Indices of the targets in `[B·L]`, u32 `[N]`; `None` if every position has a target.
    pub(super) places: Option<Array>,
    /// 1 for a target and 0 for padding, f32 `[N]`; `None` without padding.
    pub(super) counted: Option<Array>,
}

impl BatchArrays {
    /// The arrays of `batch`, with its targets alone.
    pub(super) fn new(batch: &Batch) -> Self {
        Self::with_targets(batch, batch.target_count())
    }

    /// The arrays of `batch` with a number of targets that few batches differ in: at most 16 for
    /// a length.
    pub(super) fn padded(batch: &Batch) -> Self {
        let (count, all) = (batch.target_count(), batch.mask.len());
        let multiple = (all / 16).next_multiple_of(32).max(32);
        Self::with_targets(batch, count.next_multiple_of(multiple).min(all))
    }

    fn with_targets(batch: &Batch, length: usize) -> Self {
        let places = batch.mask.iter().enumerate().filter(|(_, real)| **real);
        let mut places: Vec<u32> = places.map(|(place, _)| place as u32).collect();
        let count = places.len();
        places.resize(length, 0);
        let ids = places
            .iter()
            .map(|&p| batch.targets.get(p as usize).copied());
        let ids: Vec<u32> = ids.map(Option::unwrap_or_default).collect();
        let every = count == batch.mask.len();
        let counted = (length > count).then(|| {
            let counted: Vec<f32> = (0..length).map(|i| f32::from(i < count)).collect();
            Array::from_slice(&counted, &[length as i32])
        });
        let (rows, columns) = (batch.batch as i32, batch.length as i32);
        let documents = &batch.documents;
        Self {
            tokens: Array::from_slice(&batch.inputs, &[rows, columns]),
            ids: Array::from_slice(&ids, &[length as i32]),
            count: Array::from_f32(count as f32),
            documents: (!documents.is_empty())
                .then(|| Array::from_slice(documents, &[rows, columns])),
            places: (!every).then(|| Array::from_slice(&places, &[length as i32])),
            counted,
        }
    }

    /// The row of each target of `batch`, whose arrays these are, u32 `[N]`; the number of rows for
    /// padding.
    pub(super) fn row_numbers(&self, batch: &Batch) -> Array {
        let rows = batch.mask.chunks(batch.length.max(1));
        let targets = (0_u32..).zip(rows).flat_map(|(row, mask)| {
            let real = mask.iter().filter(|real| **real);
            real.map(move |_| row)
        });
        let mut numbers: Vec<u32> = targets.collect();
        let length = self.ids.dim(0);
        numbers.resize(length as usize, batch.batch as u32);
        Array::from_slice(&numbers, &[length])
    }

    /// The mask `[B, 1, L, L]` that is added to the attention scores to separate the documents of
    /// a row; `None` if each row holds one document, for which the causal mask suffices.
    pub(super) fn mask(&self, dtype: Dtype) -> Result<Option<Array>> {
        let Some(documents) = &self.documents else {
            return Ok(None);
        };
        let (rows, length) = (documents.dim(0), documents.dim(1));
        let documents = documents.reshape(&[rows, 1, length, 1])?;
        let same = documents.eq(documents.swap_axes(-1, -2)?)?;
        let positions = arange::<_, i32>(None, length, None)?;
        let before = positions.expand_dims(1)?.ge(&positions)?;
        // Low enough that its exponential is zero, also in 16 bits.
        let hidden = Array::from_f32(-3e4);
        let added = select(&same.logical_and(before)?, Array::from_f32(0.0), hidden)?;
        Ok(Some(added.as_dtype(dtype)?))
    }

    /// The rows of `hidden` `[B, L, D]` that predict the targets, `[N, D]`: only these pass
    /// through the head, the most expensive matrix.
    pub(super) fn target_rows(&self, hidden: &Array) -> Result<Array> {
        let rows = hidden.reshape(&[-1, hidden.dim(2)])?;
        Ok(match &self.places {
            None => rows,
            Some(places) => rows.take_axis(places, 0)?,
        })
    }

    /// `values` f32 `[N, …]`, with zeros for padding.
    pub(super) fn without_padding(&self, values: &Array) -> Result<Array> {
        match &self.counted {
            None => Ok(values.clone()),
            Some(counted) => {
                let mut shape = vec![1; values.ndim()];
                if let Some(first) = shape.first_mut() {
                    *first = -1;
                }
                Ok(values.multiply(counted.reshape(&shape)?)?)
            }
        }
    }
}
