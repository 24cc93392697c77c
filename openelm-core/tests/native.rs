//! Numerics of `setup/native`, which MLX uses on Linux, against independent computations.

#![allow(clippy::unwrap_used, reason = "tests may panic")]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use std::{env, process::Command};

use mlx_rs::{
    Array,
    ops::{addmm, indexing::TryIndexOp, matmul, power},
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
        random(seed, shape)
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

/// A few rows times a transposed matrix, like activations times weights. On Linux `setup/native`
/// multiplies up to 16 rows itself, in blocks that depend on the number of rows.
#[test]
fn products_of_few_rows_are_within_rounding() {
    const MOST: usize = 20;
    for (columns, inner) in [(31, 64), (33, 63), (33, 65), (97, 127), (193, 1701)] {
        let left = random(1, &[MOST as i32, inner as i32]);
        let right = random(2, &[columns as i32, inner as i32]);
        let added = random(3, &[MOST as i32, columns as i32]);
        // The sums of products, and of their absolute values.
        let (a, b) = (values(&left), values(&right));
        let products = |row: usize, column: usize| {
            let terms = (0..inner)
                .map(|i| f64::from(a[row * inner + i]) * f64::from(b[column * inner + i]));
            terms.fold((0.0, 0.0), |(sum, size), term| {
                (sum + term, size + term.abs())
            })
        };
        let exact: Vec<_> = (0..MOST * columns)
            .map(|i| products(i / columns, i % columns))
            .collect();
        for rows in 1..=MOST {
            let left = first(&left, rows);
            let right = right.transpose().unwrap();
            let added = first(&added, rows);
            for (alpha, beta) in [(1.0, 0.0), (0.5, 0.0), (1.0, 1.0), (2.0, 0.75)] {
                let found = if (alpha, beta) == (1.0, 0.0) {
                    matmul(&left, &right)
                } else {
                    addmm(&added, &left, &right, alpha, beta)
                };
                let (found, added) = (values(&found.unwrap()), values(&added));
                for (i, (found, added)) in found.iter().zip(added).enumerate() {
                    let (sum, size) = exact[i];
                    let added = f64::from(beta) * f64::from(added);
                    let error = f64::from(*found) - (f64::from(alpha) * sum + added);
                    let error = error.abs() / (f64::from(alpha) * size + added.abs());
                    let case = (rows, columns, inner, alpha, beta, i);
                    assert!(error < 1e-6, "{case:?}: {error}");
                }
            }
        }
    }
}

/// A text does not depend on the other texts of its batch, nor on the machine's load.
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
fn products_of_few_rows_are_equal_for_any_number_of_rows_and_threads() {
    if !(is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma")) {
        eprintln!("SKIPPED: OpenBLAS multiplies, whose results depend on the number of rows");
        return;
    }
    let found = ["1", "2", "3"].map(|threads| {
        let child = Command::new(env::current_exe().unwrap())
            .args([
                "--ignored",
                "--exact",
                "--nocapture",
                "prints_products_of_few_rows",
            ])
            .env("OPENBLAS_NUM_THREADS", threads)
            .output()
            .unwrap();
        let text = String::from_utf8(child.stdout).unwrap();
        assert!(child.status.success(), "{text}");
        let line = text.lines().find(|line| line.starts_with("products: "));
        line.unwrap_or_else(|| panic!("{text}")).to_owned()
    });
    assert!(found.iter().all(|line| *line == found[0]), "{found:?}");
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
#[test]
#[ignore = "run by products_of_few_rows_are_equal_for_any_number_of_rows_and_threads"]
fn prints_products_of_few_rows() {
    use std::hash::{DefaultHasher, Hash, Hasher};

    let mut hasher = DefaultHasher::new();
    for (columns, inner) in [(700, 65), (513, 1701)] {
        let left = random(1, &[16, inner]);
        let right = random(2, &[columns, inner]).transpose().unwrap();
        let all = values(&matmul(&left, &right).unwrap());
        for rows in 1..=16 {
            let found = values(&matmul(first(&left, rows), &right).unwrap());
            assert_eq!(found, all[..found.len()], "{rows} rows");
        }
        let bits: Vec<_> = all.iter().map(|value| value.to_bits()).collect();
        bits.hash(&mut hasher);
    }
    println!("products: {:x}", hasher.finish());
}

fn random(seed: u64, shape: &[i32]) -> Array {
    let key = random::key(seed).unwrap();
    normal::<f32>(shape, None, None, &key).unwrap()
}

fn first(array: &Array, rows: usize) -> Array {
    array.try_index(..rows as i32).unwrap()
}

fn values(array: &Array) -> Vec<f32> {
    array.to_vec_exact::<f32>().unwrap()
}
