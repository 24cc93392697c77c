//! Compiled functions: MLX merges element-wise operations into one kernel.

use std::{cell::RefCell, sync::OnceLock};

use mlx_rs::{
    Array,
    error::Exception,
    ops::{multiply, sigmoid},
    transforms::compile::compile,
};

use crate::error::Result;

/// True if MLX's default device runs compiled functions. On a GPU MLX compiles their kernels with
/// the system's compiler; on a CPU it runs the C++ compiler `g++`, which may be absent.
pub(crate) fn compiles() -> bool {
    static COMPILES: OnceLock<bool> = OnceLock::new();
    *COMPILES.get_or_init(|| {
        let x = Array::from_slice(&[0.0_f32, 2.0], &[2]);
        let found = compiled_swiglu(&x, &x).and_then(|y| Ok(y.to_vec_exact::<f32>()?));
        // 2 · 2 · sigmoid(2)
        found.is_ok_and(|y| y.len() == 2 && y[0] == 0.0 && (y[1] - 3.523_188).abs() < 1e-4)
    })
}

/// `gate · sigmoid(gate) · up` as one kernel, where [`compiles`]. Its gradient is MLX's.
pub(crate) fn swiglu(gate: &Array, up: &Array) -> Result<Array> {
    if compiles() {
        return compiled_swiglu(gate, up);
    }
    Ok(plain_swiglu(gate, up)?)
}

fn plain_swiglu(gate: &Array, up: &Array) -> Result<Array, Exception> {
    multiply(multiply(gate, sigmoid(gate)?)?, up)
}

type Binary = Box<dyn for<'a> FnMut((&'a Array, &'a Array)) -> Result<Array, Exception>>;

fn compiled_swiglu(gate: &Array, up: &Array) -> Result<Array> {
    thread_local! {
        /// One function for all shapes.
        static SWIGLU: RefCell<Binary> = RefCell::new(Box::new(compile(
            |(gate, up): (&Array, &Array)| plain_swiglu(gate, up),
            true,
        )));
    }
    SWIGLU.with_borrow_mut(|swiglu| Ok(swiglu((gate, up))?))
}
