//! Splits with a fixed number of parts.

use mlx_rs::{
    Array,
    error::Exception,
    ops::{split_at_indices, split_equal},
};

use crate::error::Result;

/// The `N` equal parts of `x` along `axis`.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if the axis has a length that `N` does not divide.
pub(super) fn split<const N: usize>(x: &Array, axis: i32) -> Result<[Array; N]> {
    exactly(split_equal(x, N as i32, axis)?)
}

/// The parts of `x` along `axis` that begin at 0 and at each of `indices`: `N` must be one more than
/// their number.
///
/// # Errors
/// [`crate::error::Error::Mlx`] if the axis does not exist.
pub(super) fn split_at<const I: usize, const N: usize>(
    x: &Array,
    indices: [i32; I],
    axis: i32,
) -> Result<[Array; N]> {
    exactly(split_at_indices(x, &indices, axis)?)
}

/// `parts` as an array of `N`: a model must not run with another number of parts.
fn exactly<const N: usize>(parts: Vec<Array>) -> Result<[Array; N]> {
    parts.try_into().map_err(|parts: Vec<Array>| {
        let problem = format!("split: expected {N} parts, found {}", parts.len());
        Exception::custom(problem).into()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn another_number_of_parts_is_an_error() {
        let part = || Array::from_slice(&[1.0f32], &[1]);
        let error = exactly::<2>(vec![part()]).unwrap_err();
        assert!(matches!(error, Error::Mlx(_)), "{error}");
        let message = exactly::<2>(vec![part(), part(), part()])
            .unwrap_err()
            .to_string();
        assert!(message.contains("expected 2 parts, found 3"), "{message}");
        assert!(exactly::<2>(vec![part(), part()]).is_ok());
    }

    #[test]
    fn parts_are_those_of_mlx() {
        let x = Array::from_slice(&[1.0f32, 2.0, 3.0, 4.0], &[1, 4]);
        let values = |x: &Array| x.to_vec_exact::<f32>().unwrap();
        let [left, right] = split(&x, -1).unwrap();
        assert_eq!(
            (values(&left), values(&right)),
            (vec![1.0, 2.0], vec![3.0, 4.0])
        );
        let [left, right] = split_at(&x, [1], 1).unwrap();
        assert_eq!(
            (values(&left), values(&right)),
            (vec![1.0], vec![2.0, 3.0, 4.0])
        );
        assert!(split::<3>(&x, -1).is_err());
    }
}
