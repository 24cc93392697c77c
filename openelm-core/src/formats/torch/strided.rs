//! The order of a tensor's elements in its storage.
//!
//! Element `(i, j, ...)` of a tensor is at `i * strides[0] + j * strides[1] + ...` after its first
//! element.

/// A checked shape and strides; contiguous dimensions are merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Strided {
    /// Size and stride of each dimension, outermost first; no size is 1.
    dims: Vec<(usize, usize)>,
    elements: usize,
    reach: usize,
}

impl Strided {
    /// `None` if a count overflows, or if the numbers of sizes and strides differ.
    pub(super) fn new(shape: &[usize], strides: &[usize]) -> Option<Self> {
        if shape.len() != strides.len() {
            return None;
        }
        if shape.contains(&0) {
            return Some(Self {
                dims: Vec::new(),
                elements: 0,
                reach: 0,
            });
        }
        let mut elements = 1_usize;
        let mut reach = 1_usize;
        let mut dims: Vec<(usize, usize)> = Vec::new();
        for (&size, &stride) in shape.iter().zip(strides) {
            elements = elements.checked_mul(size)?;
            reach = reach.checked_add(size.checked_sub(1)?.checked_mul(stride)?)?;
            match dims.last_mut() {
                _ if size == 1 => {}
                Some((outer, step)) if Some(*step) == size.checked_mul(stride) => {
                    *outer = outer.checked_mul(size)?;
                    *step = stride;
                }
                _ => dims.push((size, stride)),
            }
        }
        Some(Self {
            dims,
            elements,
            reach,
        })
    }

    /// The number of elements.
    pub(super) fn elements(&self) -> usize {
        self.elements
    }

    /// Number of storage elements from the tensor's first to its last, inclusive.
    pub(super) fn reach(&self) -> usize {
        self.reach
    }

    /// True if the elements are contiguous in row-major order.
    pub(super) fn is_contiguous(&self) -> bool {
        matches!(self.dims.as_slice(), [] | [(_, 1)])
    }

    /// Copies the elements, of `size` bytes each, from `stored`, which starts at the first element,
    /// to `values` in row-major order.
    pub(super) fn gather(&self, stored: &[u8], size: usize, values: &mut [u8]) {
        let Some((&(row, step), outer)) = self.dims.split_last() else {
            let len = values.len().min(stored.len());
            if let (Some(to), Some(from)) = (values.get_mut(..len), stored.get(..len)) {
                to.copy_from_slice(from);
            }
            return;
        };
        let mut index = vec![0; outer.len()];
        for values in values.chunks_exact_mut(row.saturating_mul(size)) {
            let start: usize = index
                .iter()
                .zip(outer)
                .map(|(index, &(_, stride)): (&usize, _)| index.saturating_mul(stride))
                .fold(0, usize::saturating_add);
            let elements = (start..).step_by(step.max(1));
            for (value, at) in values.chunks_exact_mut(size).zip(elements) {
                let at = if step == 0 { start } else { at }.saturating_mul(size);
                if let Some(element) = stored.get(at..at.saturating_add(size)) {
                    value.copy_from_slice(element);
                }
            }
            advance(&mut index, outer);
        }
    }
}

/// Moves to the next row: increments the last index, with a carry to the previous ones.
fn advance(index: &mut [usize], dims: &[(usize, usize)]) {
    for (index, &(size, _)) in index.iter_mut().zip(dims).rev() {
        *index = index.saturating_add(1);
        if *index < size {
            return;
        }
        *index = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gathered(shape: &[usize], strides: &[usize], stored: &[u8]) -> Vec<u8> {
        let strided = Strided::new(shape, strides).unwrap();
        let mut values = vec![0xff; strided.elements()];
        strided.gather(stored, 1, &mut values);
        values
    }

    #[test]
    fn gathers_elements_in_row_major_order() {
        let stored: Vec<u8> = (0..24).collect();
        assert_eq!(gathered(&[3, 2], &[1, 3], &stored), [0, 3, 1, 4, 2, 5]);
        assert_eq!(gathered(&[2, 2], &[5, 2], &stored), [0, 2, 5, 7]);
        assert_eq!(gathered(&[2, 3], &[0, 1], &stored), [0, 1, 2, 0, 1, 2]);
        assert_eq!(gathered(&[3, 2], &[1, 0], &stored), [0, 0, 1, 1, 2, 2]);
        assert_eq!(
            gathered(&[2, 2, 3], &[1, 12, 4], &stored),
            [0, 4, 8, 12, 16, 20, 1, 5, 9, 13, 17, 21]
        );
        assert_eq!(gathered(&[], &[], &stored), [0]);
    }

    #[test]
    fn detects_contiguous_tensors() {
        for (shape, strides, expected) in [
            (vec![2, 3, 4], vec![12, 4, 1], true),
            (vec![2, 1, 4], vec![4, 99, 1], true),
            (vec![], vec![], true),
            (vec![0, 3], vec![1, 1], true),
            (vec![1, 1], vec![7, 9], true),
            (vec![3, 2], vec![1, 3], false),
            (vec![2, 3], vec![4, 1], false),
            (vec![4], vec![2], false),
        ] {
            let strided = Strided::new(&shape, &strides).unwrap();
            assert_eq!(strided.is_contiguous(), expected, "{shape:?} {strides:?}");
        }
    }

    #[test]
    fn rejects_counts_that_overflow() {
        assert_eq!(Strided::new(&[usize::MAX, 2], &[1, 1]), None);
        assert_eq!(Strided::new(&[3], &[usize::MAX]), None);
        assert_eq!(Strided::new(&[2, 2], &[usize::MAX - 1, 2]), None);
        assert_eq!(Strided::new(&[2], &[]), None);
        assert_eq!(Strided::new(&[2, 3], &[8, 2]).unwrap().reach(), 13);
    }
}
