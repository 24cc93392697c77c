//! Compiled functions: MLX merges element-wise operations into one kernel.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::OnceLock,
};

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
    *COMPILES.get_or_init(|| works().unwrap_or(false))
}

/// Runs a small function twice. MLX calls it once, to compile it, and each time if it does not
/// compile. A compiler that fails is an error of the evaluation.
fn works() -> Result<bool> {
    let calls = Rc::new(Cell::new(0));
    let counted = Rc::clone(&calls);
    let mut doubled = compile(
        move |x: &Array| {
            counted.set(counted.get() + 1);
            x.add(x)?.multiply(x)
        },
        false,
    );
    let x = Array::from_slice(&[1.0_f32, 3.0], &[2]);
    for _ in 0..2 {
        if doubled(&x)?.to_vec_exact::<f32>()? != [2.0, 18.0] {
            return Ok(false);
        }
    }
    Ok(calls.get() == 1)
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
