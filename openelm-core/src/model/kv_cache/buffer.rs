//! A buffer of positions that grows in steps and is written in place.

use mlx_rs::{
    Array,
    ops::{
        concatenate,
        indexing::{TryIndexMutOp, TryIndexOp},
        zeros_dtype,
    },
};

use crate::error::Result;

/// Growth of a full buffer, in positions.
pub(crate) const STEP: usize = 256;

/// Writes `new` `[B, kv_heads, L, N]` at the positions from `offset` of `buffer` `[B, kv_heads,
/// capacity, N]`, which grows if needed. A buffer without a second handle is written in place.
pub(super) fn write(buffer: Option<Array>, offset: usize, new: &Array) -> Result<Array> {
    let end = offset + new.dim(2) as usize;
    let mut buffer = match buffer {
        Some(buffer) if capacity(&buffer) >= end => buffer,
        old => grow(old, offset, end, new)?,
    };
    buffer.try_index_mut((.., .., offset as i32..end as i32, ..), new)?;
    Ok(buffer)
}

/// The first `end` positions.
pub(super) fn first(buffer: &Array, end: usize) -> Result<Array> {
    Ok(buffer.try_index((.., .., ..end as i32, ..))?)
}

/// Number of positions that fit.
pub(super) fn capacity(buffer: &Array) -> usize {
    buffer.dim(2) as usize
}

/// Zeros for `length` positions of the type and width of `like`.
pub(super) fn zeros(like: &Array, length: usize) -> Result<Array> {
    let mut shape = like.shape().to_vec();
    shape[2] = length as i32;
    Ok(zeros_dtype(&shape, like.dtype())?)
}

/// A buffer for at least `end` positions that keeps the first `offset` of `old`.
fn grow(old: Option<Array>, offset: usize, end: usize, like: &Array) -> Result<Array> {
    let fresh = zeros(like, (end - offset).div_ceil(STEP) * STEP)?;
    Ok(match old {
        Some(old) if offset > 0 => concatenate(&[first(&old, offset)?, fresh], 2)?,
        _ => fresh,
    })
}
