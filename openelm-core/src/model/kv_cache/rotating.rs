//! The first and the last keys and values of one layer: mlx-lm's `RotatingKVCache`.

use mlx_rs::{
    Array,
    ops::{
        concatenate,
        indexing::{TryIndexMutOp, TryIndexOp},
    },
};

use super::buffer;
use crate::error::Result;

/// Buffers of one layer, `[B, kv_heads, capacity, head_dim]`. A single token replaces the oldest
/// position after the kept ones; a chunk is appended to the positions in order.
#[derive(Debug, Clone)]
pub(crate) struct RotatingCache {
    /// Number of positions after which the oldest is replaced.
    pub(super) max_size: usize,
    /// Number of first positions that stay.
    pub(super) keep: usize,
    pub(super) buffers: Option<(Array, Array)>,
    /// Place in the buffers of the next position.
    pub(super) index: usize,
}

impl RotatingCache {
    pub(super) fn new(max_size: usize, keep: usize) -> Self {
        Self {
            max_size,
            keep,
            buffers: None,
            index: 0,
        }
    }

    /// Adds `keys` and `values` `[B, kv_heads, L, head_dim]` after `offset` positions and returns
    /// the positions that they attend to.
    pub(super) fn update(
        &mut self,
        offset: usize,
        keys: &Array,
        values: &Array,
    ) -> Result<(Array, Array)> {
        let (k, v) = self.buffers.take().unzip();
        if keys.dim(2) > 1 {
            let (k, v) = (
                self.appended(k, offset, keys)?,
                self.appended(v, offset, values)?,
            );
            self.index = buffer::capacity(&k);
            self.buffers = Some((k.clone(), v.clone()));
            return Ok((k, v));
        }
        let (k, place) = self.replaced(k, offset, keys)?;
        let (v, _) = self.replaced(v, offset, values)?;
        self.index = place + 1;
        let end = buffer::capacity(&k).min(offset + 1);
        let views = (buffer::first(&k, end)?, buffer::first(&v, end)?);
        self.buffers = Some((k, v));
        Ok(views)
    }

    /// The positions of `buffer` in order, up to `max_size - 1` of them, and `new`.
    fn appended(&self, buffer: Option<Array>, offset: usize, new: &Array) -> Result<Array> {
        let Some(buffer) = buffer else {
            return Ok(new.clone());
        };
        let ordered = self.in_order(buffer, offset)?;
        let old = (buffer::capacity(&ordered) + 1).saturating_sub(self.max_size);
        let kept = self.without_oldest(ordered, old)?;
        Ok(concatenate(&[&kept, new], 2)?)
    }

    /// `buffer` with the position of one token, `new`, and its place.
    fn replaced(
        &self,
        buffer: Option<Array>,
        offset: usize,
        new: &Array,
    ) -> Result<(Array, usize)> {
        let (mut buffer, mut index) = match buffer {
            Some(buffer) => (buffer, self.index),
            None => (self.grown(None, offset, new)?, offset),
        };
        let size = buffer::capacity(&buffer);
        if offset >= size && size < self.max_size {
            buffer = self.grown(Some(buffer), offset, new)?;
            index = offset;
        }
        let old = buffer::capacity(&buffer).saturating_sub(self.max_size);
        if old > 0 {
            buffer = self.without_oldest(buffer, old)?;
            index = self.max_size;
        }
        if index == self.max_size {
            index = self.keep;
        }
        let (from, to) = (index as i32, index as i32 + 1);
        buffer.try_index_mut((.., .., from..to, ..), new)?;
        Ok((buffer, index))
    }

    /// `buffer` with room for more positions.
    fn grown(&self, buffer: Option<Array>, offset: usize, like: &Array) -> Result<Array> {
        let fresh = buffer::zeros(like, buffer::STEP.min(self.max_size - offset))?;
        Ok(match buffer {
            Some(buffer) => concatenate(&[buffer, fresh], 2)?,
            None => fresh,
        })
    }

    /// `buffer` without the `old` first positions after the kept ones.
    fn without_oldest(&self, buffer: Array, old: usize) -> Result<Array> {
        if old == 0 {
            return Ok(buffer);
        }
        let (keep, rest) = (self.keep as i32, (self.keep + old) as i32);
        let parts = [
            buffer.try_index((.., .., ..keep, ..))?,
            buffer.try_index((.., .., rest.., ..))?,
        ];
        Ok(concatenate(&parts, 2)?)
    }

    /// The positions in the order of the sequence.
    fn in_order(&self, buffer: Array, offset: usize) -> Result<Array> {
        if self.index == buffer::capacity(&buffer) {
            return Ok(buffer);
        }
        let (keep, index) = (self.keep as i32, self.index as i32);
        if self.index >= offset {
            return Ok(buffer.try_index((.., .., ..index, ..))?);
        }
        let parts = [
            buffer.try_index((.., .., ..keep, ..))?,
            buffer.try_index((.., .., index.., ..))?,
            buffer.try_index((.., .., keep..index, ..))?,
        ];
        Ok(concatenate(&parts, 2)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The positions that attention sees after each update, with a key per position that is its
    /// number from 1; zero is room.
    fn seen(max_size: usize, keep: usize, updates: &[usize]) -> Vec<Vec<i32>> {
        let mut cache = RotatingCache::new(max_size, keep);
        let mut offset = 0;
        let mut all = Vec::new();
        for &length in updates {
            let numbers: Vec<f32> = (offset..offset + length).map(|n| n as f32 + 1.0).collect();
            let new = Array::from_slice(&numbers, &[1, 1, length as i32, 1]);
            let (keys, values) = cache.update(offset, &new, &new).unwrap();
            let read = |array: &Array| array.to_vec_exact::<f32>().unwrap();
            assert_eq!(
                read(&keys.flatten(None, None).unwrap()),
                read(&values.flatten(None, None).unwrap())
            );
            let numbers = read(&keys.flatten(None, None).unwrap());
            all.push(numbers.into_iter().map(|n| n as i32).collect());
            offset += length;
        }
        all
    }

    /// mlx-lm 0.32.2's `RotatingKVCache(max_size, keep)` with the same updates.
    #[test]
    fn positions_are_those_of_mlx_lm() {
        assert_eq!(
            seen(6, 2, &[3, 1, 1, 1, 1, 1, 3, 1]),
            [
                vec![1, 2, 3],
                vec![1, 2, 3, 4],
                vec![1, 2, 3, 4, 5],
                vec![1, 2, 3, 4, 5, 6],
                vec![1, 2, 7, 4, 5, 6],
                vec![1, 2, 7, 8, 5, 6],
                vec![1, 2, 6, 7, 8, 9, 10, 11],
                vec![1, 2, 12, 9, 10, 11],
            ]
        );
        assert_eq!(
            seen(5, 4, &[9, 1, 2, 1, 1]),
            [
                (1..10).collect(),
                vec![1, 2, 3, 4, 10],
                vec![1, 2, 3, 4, 11, 12],
                vec![1, 2, 3, 4, 13],
                vec![1, 2, 3, 4, 14],
            ]
        );
    }
}
