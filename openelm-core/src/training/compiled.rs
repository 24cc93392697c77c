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
    /// The latest call was the first one of its function.
    first: bool,
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
            first: false,
        }
    }

    /// Number of compiled functions.
    pub(super) fn len(&self) -> usize {
        self.functions.len()
    }

    /// True if the latest call was the first one of its function: MLX compiles new kernels when it
    /// evaluates the results.
    pub(super) fn was_first(&self) -> bool {
        self.first
    }

    /// The results for `arguments`, lazily.
    pub(super) fn call(&mut self, arguments: &Arguments) -> Result<Results> {
        let layout = arguments.layout();
        let arrays = arguments.arrays();
        let known = self
            .functions
            .iter()
            .position(|(known, _)| *known == layout);
        self.first = known.is_none();
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
                let results = function.call(arguments, false)?;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        adapter::{Adapter, LoraOptions, TargetModules},
        config::{Config, LayerWiseConfig, Preset},
        data::batch::Batch,
        mlx::{Device, Dtype, compiles, launches},
        model::Model,
        training::{
            OptimizerKind, Trainer, TrainerOptions, optimizer::Optimizer, trainer::no_targets,
        },
        weights::random_weights,
    };

    fn config(layers: usize) -> Config {
        Config::layer_wise(LayerWiseConfig {
            num_transformer_layers: layers,
            model_dim: 64,
            head_dim: 16,
            vocab_size: 50,
            ..Preset::Size270M.settings()
        })
        .unwrap()
    }

    /// Launches of a step that trains an adapter, DoRA or not, or all weights.
    fn step_launches(layers: usize, dora: Option<bool>) -> usize {
        let dtype = Dtype::Bfloat16;
        let random = |dtype| random_weights(&config(layers), dtype, 1).unwrap();
        let mut trainer = match dora {
            Some(dora) => {
                let model = Model::new(config(layers), random(dtype), dtype).unwrap();
                let options = LoraOptions {
                    dora,
                    ..LoraOptions::default()
                };
                let targets = TargetModules::all_layers();
                let adapter = Adapter::lora(&model, &targets, &options, 1).unwrap();
                Trainer::new(&model, adapter, TrainerOptions::default()).unwrap()
            }
            None => {
                let options = TrainerOptions {
                    optimizer: Optimizer::new(OptimizerKind::AdamW),
                    clip_norm: Some(1.0),
                    ..TrainerOptions::default()
                };
                let start = random(Dtype::Float32);
                Trainer::from_scratch(config(layers), start, dtype, options).unwrap()
            }
        };
        let tokens: Vec<u32> = (3..12).collect();
        let batch = Batch::packed(&[(tokens.as_slice(), &[])], 8);
        // The optimizer's state is evaluated now.
        trainer.step(&batch).unwrap();
        let arguments = Arguments {
            parameters: trainer.parameters.clone(),
            batch: Some(trainer.batch_arguments(&batch, None, 0, None).unwrap()),
            gathered: None,
            share: None,
            update: Some(trainer.update_arguments(1e-3)),
        };
        let results = trainer.call(arguments).unwrap();
        assert!(results.losses.is_some(), "{}", no_targets());
        launches(&results.into_arrays())
    }

    /// The numbers of one layer on MLX's CPU backend, where a norm and a rotary embedding are several
    /// kernels; `make launches` compares whole steps with mlx-lm's, as on a GPU.
    #[test]
    fn launches_per_layer_have_a_ceiling() {
        let _gpu = Device::Gpu.select();
        for (what, dora, most) in [
            ("lora", Some(false), 121),
            ("dora", Some(true), 167),
            ("all weights", None, 158),
        ] {
            let per_layer = step_launches(3, dora) - step_launches(2, dora);
            assert!(
                per_layer <= most || !compiles(),
                "{what}: {per_layer} launches per layer"
            );
        }
    }
}
