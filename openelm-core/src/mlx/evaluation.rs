//! Evaluations that do not wait for the device, and reading their results.
//!
//! A step is evaluated as a whole while the host reads the step before. An operation that is made
//! for the reading would wait for the step after, so [`Evaluations`] counts such arrays.

use std::cell::Cell;

use mlx_rs::{
    Array, ArrayElement,
    transforms::{async_eval, eval},
};

use super::ffi;
use crate::error::Result;

/// Evaluations of this thread, for tests.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Evaluations {
    /// Evaluations that were started.
    pub started: usize,
    /// Arrays that were to be finished, but had to be evaluated or waited for.
    pub late: usize,
}

impl Evaluations {
    /// The number so far.
    pub fn of_thread() -> Self {
        COUNT.get()
    }

    /// The number since `before`.
    pub fn since(before: Self) -> Self {
        let now = Self::of_thread();
        Self {
            started: now.started - before.started,
            late: now.late - before.late,
        }
    }
}

/// Starts the evaluation of `arrays`.
pub(crate) fn start<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    #[cfg(test)]
    let arrays = super::graph::record(arrays.into_iter().collect());
    count(1, 0);
    Ok(async_eval(arrays)?)
}

/// Evaluates `arrays` and waits for the device.
pub(crate) fn complete<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    #[cfg(test)]
    let arrays = super::graph::record(arrays.into_iter().collect());
    count(1, 0);
    Ok(eval(arrays)?)
}

/// Waits for `arrays` whose evaluation [`start`] started.
pub(crate) fn wait<'a>(arrays: impl IntoIterator<Item = &'a Array>) -> Result<()> {
    Ok(eval(arrays)?)
}

/// The values of an array whose evaluation [`start`] started together with another array, which
/// has been read.
pub(crate) fn finished<T: ArrayElement + Clone>(array: &Array) -> Result<Vec<T>> {
    if !ffi::is_available(array)? {
        count(0, 1);
    }
    Ok(array.to_vec_exact::<T>()?)
}

fn count(started: usize, late: usize) {
    let before = COUNT.get();
    COUNT.set(Evaluations {
        started: before.started + started,
        late: before.late + late,
    });
}

thread_local! {
    static COUNT: Cell<Evaluations> = const {
        Cell::new(Evaluations { started: 0, late: 0 })
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_arrays_that_are_not_part_of_the_evaluation() {
        let x = Array::from_slice(&[1.0_f32, 4.0], &[2]);
        let (root, sum) = (x.sqrt().unwrap(), x.sum(None).unwrap());
        let before = Evaluations::of_thread();
        start([&root, &sum]).unwrap();
        assert_eq!(root.to_vec_exact::<f32>().unwrap(), [1.0, 2.0]);
        assert_eq!(finished::<f32>(&sum).unwrap(), [5.0]);
        let counts = |started, late| Evaluations { started, late };
        assert_eq!(Evaluations::since(before), counts(1, 0));
        let new = root.negative().unwrap();
        assert_eq!(finished::<f32>(&new).unwrap(), [-1.0, -2.0]);
        assert_eq!(Evaluations::since(before), counts(1, 1));
    }
}
