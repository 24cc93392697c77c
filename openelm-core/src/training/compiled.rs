//! A training step as compiled functions: MLX merges its element-wise operations into few kernels.

use std::{fmt, rc::Rc};

use mlx_rs::{Array, error::Exception, transforms::compile::compile};

use super::{
    exception::into_exception,
    step_function::{Arguments, Layout, Results, StepFunction},
};
use crate::error::Result;

/// The compiled functions of a step, one for each layout of its arguments.
pub(super) struct CompiledStep {
    function: Rc<StepFunction>,
    /// The most recently used function last.
    functions: Vec<(Layout, Function)>,
}

type Function = Box<dyn FnMut(&[Array]) -> Result<Vec<Array>, Exception>>;

/// Layouts whose functions are kept. The lengths of batches are multiples of 32, and their numbers
/// of targets differ in at most 16 steps for a length; a function keeps its graph, without values.
const MOST: usize = 32;

impl CompiledStep {
    pub(super) fn new(function: Rc<StepFunction>) -> Self {
        Self {
            function,
            functions: Vec::new(),
        }
    }

    /// Number of compiled functions.
    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    /// The results for `arguments`, lazily, of the objective of predictions.
    pub(super) fn call(&mut self, arguments: &Arguments) -> Result<Results> {
        let layout = arguments.layout();
        let arrays = arguments.arrays();
        let known = self
            .functions
            .iter()
            .position(|(known, _)| *known == layout);
        let (layout, mut function) = match known {
            Some(place) => self.functions.remove(place),
            None => {
                let function = self.compiled(layout.clone());
                (layout, function)
            }
        };
        let results = self.function.results(&layout, function(&arrays)?)?;
        if self.functions.len() >= MOST {
            drop(self.functions.remove(0));
        }
        self.functions.push((layout, function));
        Ok(results)
    }

    fn compiled(&self, layout: Layout) -> Function {
        let function = Rc::clone(&self.function);
        let of_arrays = move |arrays: &[Array]| {
            let run = || {
                let arguments = Arguments::from_arrays(&layout, arrays)?;
                let results = function.call(arguments, function.predict(), false)?;
                Ok(results.into_arrays())
            };
            run().map_err(into_exception)
        };
        Box::new(compile(of_arrays, false))
    }
}

impl fmt::Debug for CompiledStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompiledStep")
            .field("functions", &self.functions.len())
            .finish_non_exhaustive()
    }
}
