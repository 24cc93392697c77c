//! Parameters of which each process of a group keeps a part: fully sharded data parallel
//! (arXiv 2304.11277).
//!
//! The parts of a parameter have the same size: its numbers in their order, with zeros at the end.
//! A process keeps the part of its rank of each parameter, of its gradient and of the optimizer's
//! state. Whole parameters exist for one layer at a time: [`whole`](Sharding::whole) gathers them,
//! and [`sum`](Sharding::sum) adds up gradients over the processes and keeps the own part.

use std::rc::Rc;

use mlx_rs::{
    Array,
    ops::{concatenate, indexing::TryIndexOp, pad, split_at_indices},
    transforms,
};

use super::{
    group::Group,
    optimizer::{Optimizer, OptimizerKind},
    trainable::placeholder,
};
use crate::error::{Error, Result};

/// Columns of the part of a matrix: the part is a matrix too, so that it has weight decay.
const COLUMNS: i32 = 256;

/// The shapes of the whole parameters, and the processes that keep their parts.
#[derive(Debug)]
pub(super) struct Sharding {
    group: Rc<Group>,
    shapes: Vec<Vec<i32>>,
}

impl Sharding {
    /// The sharding of `parameters` over the processes of `group`.
    ///
    /// # Errors
    /// [`Error::Option`] for an optimizer whose update of a number depends on others.
    pub(super) fn new(
        group: Rc<Group>,
        parameters: &[Array],
        optimizer: &Optimizer,
    ) -> Result<Self> {
        if optimizer.kind == OptimizerKind::Adafactor {
            let problem = "Adafactor needs whole matrices; use AdamW, Adam, Lion or SGD";
            return Err(Error::option("fsdp", problem));
        }
        let shapes = parameters.iter().map(|whole| whole.shape().to_vec());
        Ok(Self {
            group,
            shapes: shapes.collect(),
        })
    }

    pub(super) fn group(&self) -> &Group {
        &self.group
    }

    /// The shapes of the whole parameters.
    pub(super) fn shapes(&self) -> &[Vec<i32>] {
        &self.shapes
    }

    /// Number of trained parameters, of all processes together.
    pub(super) fn parameter_count(&self) -> u64 {
        self.shapes.iter().map(|shape| count(shape) as u64).sum()
    }

    /// Arrays of the parameters' shapes that use no memory.
    pub(super) fn placeholders(&self) -> Result<Vec<Array>> {
        let shapes = self.shapes.iter();
        let placeholders = shapes.map(|shape| placeholder(shape, mlx_rs::Dtype::Float32));
        placeholders.collect()
    }

    /// The own part of the parameter `index`, evaluated, without the memory of `whole`.
    pub(super) fn part(&self, index: usize, whole: &Array) -> Result<Array> {
        let rows = self.rows(index, whole)?;
        let part = self.own_row(&rows)?.reshape(&self.part_shape(index))?;
        part.eval()?;
        Ok(part)
    }

    /// The whole parameters of the `indices` from their `parts`, evaluated. All processes must call
    /// it with the same indices.
    ///
    /// # Errors
    /// As [`Group::all_sum`].
    pub(super) fn whole(&self, indices: &[usize], parts: &[&Array]) -> Result<Vec<Array>> {
        let flat = parts.iter().map(|part| part.reshape(&[-1]));
        let flat = concatenate(&flat.collect::<Result<Vec<_>, _>>()?, 0)?;
        let gathered = self.group.all_gather(&flat)?;
        let rows = gathered.reshape(&[self.size(), -1])?;
        let mut wholes = Vec::with_capacity(indices.len());
        for (&index, rows) in indices.iter().zip(self.split(indices, &rows)?) {
            let shape = self.shape(index);
            let numbers = rows.reshape(&[-1])?.try_index(0..count(shape))?;
            wholes.push(numbers.reshape(shape)?);
        }
        transforms::eval(&wholes)?;
        Ok(wholes)
    }

    /// The whole array of the shape of the parameter `index`, from its part. All processes must call
    /// it.
    ///
    /// # Errors
    /// As [`Group::all_sum`].
    pub(super) fn whole_of(&self, index: usize, part: &Array) -> Result<Array> {
        let rows = self.group.all_gather(&part.reshape(&[-1])?)?;
        let shape = self.shape(index);
        Ok(rows.try_index(0..count(shape))?.reshape(shape)?)
    }

    /// The own part of an array of the shape of the parameter `index`, which only rank 0 has. All
    /// processes must call it.
    ///
    /// # Errors
    /// As [`Group::all_sum`].
    pub(super) fn part_from_first(&self, index: usize, whole: Option<Array>) -> Result<Array> {
        let whole = match whole {
            Some(whole) => whole,
            None => mlx_rs::ops::zeros::<f32>(self.shape(index))?,
        };
        self.part(index, &self.group.all_sum(&whole)?)
    }

    /// The own parts of the sums over the processes of the `wholes`, of the shapes of the
    /// parameters `indices`, evaluated. All processes must call it with the same indices.
    ///
    /// # Errors
    /// As [`Group::all_sum`].
    pub(super) fn sum(&self, indices: &[usize], wholes: Vec<Array>) -> Result<Vec<Array>> {
        if indices.is_empty() {
            return Ok(Vec::new());
        }
        let rows = indices.iter().zip(&wholes);
        let rows = rows.map(|(&index, whole)| self.rows(index, whole));
        let rows = concatenate(&rows.collect::<Result<Vec<_>>>()?, 1)?;
        rows.eval()?;
        drop(wholes);
        let own = self.own_row(&self.group.all_sum(&rows)?)?;
        drop(rows);
        own.eval()?;
        let mut parts = Vec::with_capacity(indices.len());
        for (&index, row) in indices.iter().zip(self.split(indices, &own)?) {
            parts.push(row.reshape(&self.part_shape(index))?);
        }
        transforms::eval(&parts)?;
        Ok(parts)
    }

    /// `whole` as `[processes, numbers of a part]`, with zeros at the end.
    fn rows(&self, index: usize, whole: &Array) -> Result<Array> {
        let flat = whole.reshape(&[-1])?;
        let missing = self.size() * self.part_count(index) - flat.dim(0);
        let padded = match missing {
            0 => flat,
            missing => pad(&flat, (0, missing), None, None)?,
        };
        Ok(padded.reshape(&[self.size(), -1])?)
    }

    /// A copy of the row of this rank, `[1, n]`.
    fn own_row(&self, rows: &Array) -> Result<Array> {
        let rank = Array::from_slice(&[self.group.rank() as i32], &[1]);
        Ok(rows.take_axis(rank, 0)?)
    }

    /// The columns of each of the parameters `indices`.
    fn split(&self, indices: &[usize], rows: &Array) -> Result<Vec<Array>> {
        let ends = indices.iter().scan(0, |end, &index| {
            *end += self.part_count(index);
            Some(*end)
        });
        let ends: Vec<i32> = ends.take(indices.len().saturating_sub(1)).collect();
        Ok(split_at_indices(rows, &ends, 1)?)
    }

    fn shape(&self, index: usize) -> &[i32] {
        self.shapes.get(index).map_or(&[], Vec::as_slice)
    }

    /// Numbers of a part.
    fn part_count(&self, index: usize) -> i32 {
        let shape = self.shape(index);
        let share = (count(shape) as u32).div_ceil(self.size() as u32) as i32;
        match shape.len() {
            0 | 1 => share,
            _ => (share as u32).next_multiple_of(COLUMNS as u32) as i32,
        }
    }

    fn part_shape(&self, index: usize) -> Vec<i32> {
        match self.shape(index).len() {
            0 | 1 => vec![self.part_count(index)],
            _ => vec![self.part_count(index) / COLUMNS, COLUMNS],
        }
    }

    fn size(&self) -> i32 {
        self.group.size() as i32
    }
}

fn count(shape: &[i32]) -> i32 {
    shape.iter().product()
}
