//! Numerics of `setup/native`, which MLX uses on Linux, against independent computations.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

use mlx_rs::{
    Array,
    ops::{indexing::TryIndexOp, matmul, power},
    random::{self, normal},
};

#[test]
fn powers_are_within_one_rounding() {
    let exponents: Vec<f32> = (-8000..=8000).map(|i| i as f32 * 0.01).collect();
    let x = Array::from_slice(&exponents, &[exponents.len() as i32]);
    for base in [0.5_f32, 2.0, (-1.0_f32).exp(), 1.7] {
        let found = power(Array::from_f32(base), &x).unwrap();
        let found = found.to_vec_exact::<f32>().unwrap();
        for (x, found) in exponents.iter().zip(found) {
            let exact = f64::from(base).powf(f64::from(*x));
            let error = (f64::from(found) / exact - 1.0).abs();
            assert!(error < 1.2e-7, "{base}^{x} = {found}, not {exact}");
        }
    }
}

/// A few rows times a narrow matrix, like queries times keys and weights times values. On Linux
/// `setup/native` multiplies matrices of suitable widths itself, the longest on all threads. The
/// matrix is a part of a longer one.
#[test]
fn small_products_are_within_rounding() {
    let mut seed = 0;
    let mut random = |shape: &[i32]| {
        seed += 1;
        let key = random::key(seed).unwrap();
        normal::<f32>(shape, None, None, &key).unwrap()
    };
    for rows in 1..=5 {
        let sizes = [(1, 32), (63, 48), (64, 64), (65, 16), (300, 128), (7, 288)];
        for (length, width) in sizes.into_iter().chain([(1500, 64), (1501, 32)]) {
            let buffer = random(&[2, length + 3, width]);
            let right = buffer.try_index((.., ..length, ..)).unwrap();
            for transposed in [true, false] {
                let inner = if transposed { width } else { length };
                let left = random(&[2, rows, inner]);
                let right = if transposed {
                    right.swap_axes(-1, -2).unwrap()
                } else {
                    right.clone()
                };
                let found = matmul(&left, &right).unwrap();
                // The same values from elementwise products, without BLAS.
                let terms = left.expand_dims(3).unwrap();
                let terms = terms.multiply(right.expand_dims(1).unwrap()).unwrap();
                let error = found.subtract(terms.sum_axis(2, None).unwrap()).unwrap();
                let size = terms.abs().unwrap().sum_axis(2, None).unwrap();
                let error = error
                    .abs()
                    .unwrap()
                    .divide(size)
                    .unwrap()
                    .max(None)
                    .unwrap();
                let error = error.item_exact::<f32>();
                let case = (rows, length, width, transposed);
                assert!(error < 2e-6, "{case:?}: {error}");
            }
        }
    }
}
