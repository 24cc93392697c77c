//! Tests of the primitives against MLX's operations.

use std::slice::from_ref;

use mlx_rs::{
    Dtype as MlxDtype,
    fast::rms_norm,
    ops::{indexing::TryIndexOp, matmul, sigmoid},
    random,
    transforms::fallible_vjp,
};

use super::*;
use crate::mlx::{Quantization, QuantizationMode, QuantizedMatrix};

fn normal(seed: u64, shape: &[i32]) -> Array {
    let key = random::key(seed).unwrap();
    random::normal::<f32>(shape, None, None, &key).unwrap()
}

/// A matrix `[rows, width]` of every kind.
fn matrices(rows: i32, width: i32) -> Vec<Matrix> {
    let values = normal(1, &[rows, width]);
    let mut all = vec![Matrix::Dense(values.clone())];
    for dtype in [MlxDtype::Bfloat16, MlxDtype::Float16] {
        all.push(Matrix::Stored(values.as_dtype(dtype).unwrap()));
    }
    let affine = [2, 3, 4, 5, 6, 8].map(|bits| (QuantizationMode::Affine, Some(bits)));
    let modes = [
        QuantizationMode::Mxfp4,
        QuantizationMode::Mxfp8,
        QuantizationMode::Nvfp4,
    ];
    for (mode, bits) in affine.into_iter().chain(modes.map(|mode| (mode, None))) {
        let quantization = Quantization::new(mode, bits, None).unwrap();
        let matrix = QuantizedMatrix::quantize(&values, quantization).unwrap();
        if mode == QuantizationMode::Affine {
            let mut half = matrix.clone();
            half.scales = half.scales.as_dtype(MlxDtype::Bfloat16).unwrap();
            half.biases = half.biases.map(|b| b.as_dtype(MlxDtype::Bfloat16).unwrap());
            all.push(Matrix::Quantized(half));
        }
        all.push(Matrix::Quantized(matrix));
    }
    all
}

fn assert_near(found: &Array, expected: &Array, what: &str) {
    assert_eq!(found.shape(), expected.shape(), "{what}");
    let error = found.subtract(expected).unwrap().abs().unwrap();
    let error = error.max(None).unwrap().to_vec_exact::<f32>().unwrap()[0];
    let largest = expected.abs().unwrap().max(None).unwrap();
    let largest = largest.to_vec_exact::<f32>().unwrap()[0];
    assert!(error <= 4e-6 * largest, "{what}: {error} of {largest}");
}

fn primitives() -> Option<CpuPrimitives> {
    CpuPrimitives::of(Device::current().unwrap())
}

#[test]
fn products_and_rows_are_those_of_the_expanded_matrix() {
    let Some(primitives) = primitives() else {
        return;
    };
    let (rows, width) = (96, 128);
    for (i, matrix) in matrices(rows, width).iter().enumerate() {
        let expanded = matrix.float32().unwrap();
        let ids = Array::from_slice(&[5_u32, 0, 95], &[1, 3]);
        let found = primitives.rows(&ids, matrix).unwrap();
        let expected = expanded.take_axis(&ids, 0).unwrap();
        assert_near(&found, &expected, &format!("rows of matrix {i}"));
        for count in [1, 4, 40] {
            let x = normal(2, &[1, count, width]);
            let weight = normal(3, &[width]);
            let norm = Norm {
                weight: &weight,
                eps: 1e-6,
            };
            let plain = matmul(&x, expanded.t()).unwrap();
            let normed = rms_norm(&x, Some(&weight), 1e-6).unwrap();
            let normed = matmul(&normed, expanded.t()).unwrap();
            let residual = normal(4, &[1, count, rows]);
            let gate = normed.try_index((.., .., ..rows / 2)).unwrap();
            let up = normed.try_index((.., .., rows / 2..)).unwrap();
            let silu = gate.multiply(sigmoid(&gate).unwrap()).unwrap();
            for (norm, then, expected) in [
                (None, Then::Nothing, plain.clone()),
                (None, Then::Add(&residual), plain.add(&residual).unwrap()),
                (Some(norm), Then::Nothing, normed.clone()),
                (Some(norm), Then::Swiglu, silu.multiply(up).unwrap()),
            ] {
                let found = primitives.linear(&x, matrix, norm, then).unwrap();
                assert_near(&found, &expected, &format!("matrix {i}, {count}, {then:?}"));
            }
        }
    }
}

#[test]
fn gradients_are_those_of_the_expanded_matrix() {
    let Some(primitives) = primitives() else {
        return;
    };
    for matrix in matrices(96, 128) {
        let expanded = matrix.float32().unwrap();
        let (x, cotangent) = (normal(2, &[2, 5, 128]), normal(3, &[2, 5, 96]));
        let forward = |x: &[Array]| {
            let y = primitives
                .linear(&x[0], &matrix, None, Then::Nothing)
                .unwrap();
            Ok::<_, mlx_rs::error::Exception>(vec![y])
        };
        let (_, gradient) = fallible_vjp(forward, &[x], from_ref(&cotangent)).unwrap();
        assert_near(
            &gradient[0],
            &matmul(cotangent, expanded).unwrap(),
            "gradient",
        );
    }
}

/// Values and gradients of `found` and `expected` at `primals`.
fn assert_same_gradients(
    primals: &[Array],
    cotangent: &Array,
    found: impl Fn(&[Array]) -> Array,
    expected: impl Fn(&[Array]) -> Array,
    what: &str,
) {
    let all = |f: &dyn Fn(&[Array]) -> Array| {
        let f = |x: &[Array]| Ok::<_, mlx_rs::error::Exception>(vec![f(x)]);
        let (mut values, gradients) = fallible_vjp(f, primals, from_ref(cotangent)).unwrap();
        values.extend(gradients);
        values
    };
    for (i, (found, expected)) in all(&found).iter().zip(&all(&expected)).enumerate() {
        assert_near(found, expected, &format!("{what}, array {i}"));
    }
}

#[test]
fn norms_and_their_gradients_are_those_of_mlx() {
    let Some(primitives) = primitives() else {
        return;
    };
    // One row, more rows than a piece has, widths that are no multiple of a vector, and heads.
    for (shape, weight) in [
        (vec![1, 1, 8], vec![8]),
        (vec![2, 300, 128], vec![128]),
        (vec![3, 5, 37], vec![37]),
        (vec![2, 70, 6, 64], vec![6, 64]),
    ] {
        let x = normal(1, &shape).multiply(Array::from_f32(3.0)).unwrap();
        let (weight, cotangent) = (normal(2, &weight), normal(3, &shape));
        assert_same_gradients(
            &[x, weight],
            &cotangent,
            |x| {
                let norm = Norm {
                    weight: &x[1],
                    eps: 1e-3,
                };
                primitives.rms_norm(&x[0], norm).unwrap()
            },
            |x| {
                let normed = rms_norm(&x[0], None, 1e-3).unwrap();
                normed.multiply(&x[1]).unwrap()
            },
            &format!("{shape:?}"),
        );
    }
}

#[test]
fn swiglu_and_its_gradient_are_those_of_mlx() {
    let Some(primitives) = primitives() else {
        return;
    };
    for shape in [[1, 1, 2], [2, 300, 128], [3, 5, 74]] {
        let width = shape[2] / 2;
        // With sigmoids near 0 and 1.
        let x = normal(1, &shape).multiply(Array::from_f32(20.0)).unwrap();
        assert_same_gradients(
            &[x],
            &normal(2, &[shape[0], shape[1], width]),
            |x| primitives.swiglu(&x[0]).unwrap(),
            |x| {
                let gate = x[0].try_index((.., .., ..width)).unwrap();
                let up = x[0].try_index((.., .., width..)).unwrap();
                let silu = gate.multiply(sigmoid(&gate).unwrap()).unwrap();
                silu.multiply(up).unwrap()
            },
            &format!("{shape:?}"),
        );
    }
}

#[test]
fn softmax_and_its_parts_are_those_of_mlx() {
    let Some(primitives) = primitives() else {
        return;
    };
    for shape in [[1, 1], [3, 7], [5, 96], [70, 1001]] {
        let x = normal(1, &shape).multiply(Array::from_f32(9.0)).unwrap();
        let parts = primitives.softmax(&x).unwrap();
        let largest = x.max_axis(-1, true).unwrap();
        let powers = x.subtract(&largest).unwrap().exp().unwrap();
        let sums = powers.sum_axis(-1, true).unwrap();
        let what = format!("{shape:?}");
        assert_near(&parts.largest, &largest, &what);
        assert_near(&parts.sums, &sums, &what);
        assert_near(&parts.probabilities, &powers.divide(sums).unwrap(), &what);
    }
    // A number that is not finite does not become a probability.
    for wrong in [f32::NAN, f32::INFINITY] {
        for at in [0, 18] {
            let mut row = [1.0; 19];
            row[at] = wrong;
            let parts = primitives.softmax(&Array::from_slice(&row, &[1, 19]));
            let found = parts.unwrap().probabilities.to_vec_exact::<f32>().unwrap();
            assert!(found.iter().all(|x| x.is_nan()) || wrong == f32::INFINITY);
            assert!(found.iter().any(|x| x.is_nan()), "{wrong} at {at}");
        }
    }
    let half = Array::from_slice(&[1.0_f32, 2.0], &[1, 2])
        .as_dtype(MlxDtype::Float16)
        .unwrap();
    for wrong in [half, Array::from_f32(1.0), normal(1, &[0, 3])] {
        let error = primitives.softmax(&wrong).unwrap_err().to_string();
        assert!(error.contains("a softmax of this type"), "{error}");
    }
}

#[test]
fn arguments_that_do_not_fit_are_errors() {
    let Some(primitives) = primitives() else {
        return;
    };
    let matrix = Matrix::Dense(normal(1, &[6, 4]));
    let x = normal(2, &[3, 4]);
    let linear = |x: &Array, norm: Option<&Array>, then: Then<'_>| {
        let norm = norm.map(|weight| Norm { weight, eps: 0.0 });
        primitives
            .linear(x, &matrix, norm, then)
            .unwrap_err()
            .to_string()
    };
    let half = x.as_dtype(MlxDtype::Float16).unwrap();
    for message in [
        linear(&normal(2, &[3, 5]), None, Then::Nothing),
        linear(&half, None, Then::Nothing),
        linear(&x, Some(&normal(3, &[5])), Then::Nothing),
        linear(&x, None, Then::Add(&normal(3, &[3, 5]))),
    ] {
        assert!(message.contains("fit"), "{message}");
    }
    let norm = |x: &Array, weight: &Array| {
        let norm = Norm { weight, eps: 0.0 };
        primitives.rms_norm(x, norm).unwrap_err().to_string()
    };
    let message = norm(&x, &normal(3, &[5]));
    assert!(message.contains("fit"), "{message}");
    let message = norm(&half, &normal(3, &[4]));
    assert!(message.contains("type"), "{message}");
    for x in [&normal(2, &[3, 5]), &half] {
        let message = primitives.swiglu(x).unwrap_err().to_string();
        assert!(message.contains("SwiGLU"), "{message}");
    }
    let integers = Matrix::Dense(x.as_dtype(MlxDtype::Int32).unwrap());
    let error = primitives
        .linear(&x, &integers, None, Then::Nothing)
        .unwrap_err();
    assert!(error.to_string().contains("floating"), "{error}");
    let heads = Heads {
        queries: 2,
        keys: 1,
        head_dim: 4,
        norms: None,
    };
    let span = Span {
        offset: 3,
        length: 1,
    };
    let (qkv, table) = (normal(4, &[1, 1, 16]), normal(5, &[1, 1, 2]));
    let error = primitives
        .attend(&qkv, [&table, &table], heads, &[span], &[None], 256)
        .unwrap_err();
    assert!(error.to_string().contains("cache"), "{error}");
}
