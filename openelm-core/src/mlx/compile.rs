//! Compiled functions: MLX merges element-wise operations into one kernel.

use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use mlx_rs::{
    Array,
    error::Exception,
    ops::{multiply, sigmoid},
    transforms::compile::compile,
};

use crate::error::{Error, Result};

/// A compiler failed after [`compiles`] found that it works.
static FAILED: AtomicBool = AtomicBool::new(false);

/// True if MLX's default device runs compiled functions. On a GPU MLX compiles their kernels with
/// the system's compiler; on a CPU it runs the C++ compiler `g++`, which may be absent.
pub(crate) fn compiles() -> bool {
    static COMPILES: OnceLock<bool> = OnceLock::new();
    *COMPILES.get_or_init(|| works().unwrap_or(false)) && !FAILED.load(Ordering::Relaxed)
}

/// True if `error` is the failure of MLX's compiler for a kernel of a compiled function. From then
/// on nothing [`compiles`].
///
/// MLX compiles a kernel when it evaluates it for the first time, before the kernel takes the
/// memory of an argument; kernels before it have run.
pub(crate) fn compiler_failed(error: &Error) -> bool {
    let Error::Mlx(exception) = error else {
        return false;
    };
    let failed = FAILURES.iter().any(|text| exception.what().contains(text));
    if failed {
        FAILED.store(true, Ordering::Relaxed);
    }
    failed
}

/// Texts of MLX's errors: of `Compiled::eval_cpu`, and of Metal's `Device::build_library_`.
const FAILURES: [&str; 3] = [
    "[Compile::eval_cpu]",
    "Could not load C++ shared library",
    "Unable to build metal library",
];

/// Runs `work`, which changes nothing if it fails; once more, without compiled functions, if a
/// compiler fails.
pub(crate) fn or_uncompiled<T>(mut work: impl FnMut() -> Result<T>) -> Result<T> {
    match work() {
        Err(error) if compiler_failed(&error) => work(),
        result => result,
    }
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
