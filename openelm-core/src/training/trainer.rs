//! The trainer: gradient steps on batches of tokens.
//!
//! [`Trainer`] owns the parameters and the optimizer's state. Its callers choose the batches and
//! the times of saves: [`crate::training::finetune::finetune`], [`crate::training::pretrain`].

use std::rc::Rc;

use mlx_rs::{Array, transforms};

use super::{
    batch_arrays::BatchArrays,
    compiled::CompiledStep,
    optimizer::OptimizerState,
    preference::Preference,
    sharding::Sharding,
    step_function::{Arguments, BatchArguments, Results, StepFunction, UpdateArguments},
    trainable::{self, TrainableModel},
    trainer_options::TrainerOptions,
};
use crate::{
    adapter::{Adapter, AdapterKind},
    config::Config,
    data::batch::Batch,
    error::{Error, Result},
    mlx::{Device, Dtype, compiles},
    model::Model,
    seed::derive_seed,
    weights::{PendingTensor, Tensors, Weights},
};

/// The result of one step.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Number of batches so far, including this one.
    pub iteration: u64,
    /// Mean loss over the batch's targets (over its pairs, with preferences), in nats, before the
    /// update.
    pub loss: f32,
    /// The part of `loss` that is z-loss.
    pub z_loss: f32,
    /// Targets in the batch.
    pub targets: usize,
    /// Learning rate of the latest update, or of the next one if gradients were only accumulated.
    pub learning_rate: f32,
    /// Norm of the gradient before clipping; only with `clip_norm`, and only at updates.
    pub gradient_norm: Option<f32>,
}

/// Trains an adapter or weights. Not `Send`: it belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Trainer {
    pub(super) trainable: Rc<TrainableModel>,
    pub(super) function: Rc<StepFunction>,
    pub(super) compiled: Option<CompiledStep>,
    pub(super) options: TrainerOptions,
    pub(super) parameters: Vec<Array>,
    pub(super) optimizer: OptimizerState,
    /// The parameters in the dtype of the computation: each update's kernels cast what they
    /// compute. `None` to cast them in each step. They are no part of a saved state.
    pub(super) copies: Option<Vec<Array>>,
    /// The processes that keep the parts of the parameters, if they are sharded: `parameters`, the
    /// optimizer's state and `average` are then the parts of this process.
    pub(super) sharding: Option<Rc<Sharding>>,
    /// Accumulated gradients since the last update.
    pub(super) gathered: Option<Vec<Array>>,
    /// The moving average of the trained parameters.
    pub(super) average: Option<Vec<Array>>,
    pub(super) iteration: u64,
    /// MLX failed in a step: the parameters may be arrays without values.
    pub(super) failed: bool,
}

impl Trainer {
    /// Trains `adapter` on `model`, which shares its weights with the trainer and is not changed.
    ///
    /// # Errors
    /// [`Error::Adapter`] if the adapter does not fit, [`Error::Option`] for an option out of range
    /// or a model with active adapters, [`Error::NonFinite`] for parameters that are not finite.
    pub fn new(model: &Model, adapter: Adapter, options: TrainerOptions) -> Result<Self> {
        options.check()?;
        let mut trainable = TrainableModel::new(model, adapter)?;
        if options.autocast {
            trainable.autocast(Dtype::Bfloat16)?;
        }
        let parameters = trainable.start()?;
        trainable.forget_start()?;
        let optimizer = OptimizerState::new(options.optimizer, trainable.names(), &parameters)?;
        let average = options.ema_decay.map(|_| parameters.clone());
        trainable.check_finite(&parameters)?;
        let on_gpu = Device::current()? == Device::Gpu;
        let compile = options.compile.unwrap_or(on_gpu) && compiles();
        // MLX merges no more than one of the cast and the moving average into an update.
        let keeps_copies = compile
            && on_gpu
            && trainable.casts_parameters()
            && !options.grad_checkpoint
            && options.ema_decay.is_none();
        let trainable = Rc::new(trainable);
        let function = StepFunction::new(Rc::clone(&trainable), &options, keeps_copies);
        let function = Rc::new(function);
        let mut trainer = Self {
            trainable,
            compiled: compile.then(|| CompiledStep::new(Rc::clone(&function))),
            function,
            options,
            parameters,
            copies: keeps_copies.then(Vec::new),
            optimizer,
            sharding: None,
            gathered: None,
            average,
            iteration: 0,
            failed: false,
        };
        trainer.cast_parameters()?;
        Ok(trainer)
    }

    /// Trains all weights of a new model, from `start` (f32), computing in `dtype`; the parameters
    /// stay f32. With [`autocast`](TrainerOptions::autocast), `dtype` is that of the products.
    ///
    /// # Errors
    /// As [`new`](Self::new), and [`Error::MissingTensor`] or [`Error::TensorShape`] if `start`
    /// does not match `config`.
    pub fn from_scratch(
        config: Config,
        mut start: Weights,
        dtype: Dtype,
        options: TrainerOptions,
    ) -> Result<Self> {
        let dtype = if options.autocast {
            Dtype::Float32
        } else {
            dtype
        };
        let mut weights = Tensors::new();
        let mut hollow = std::collections::HashMap::new();
        for (name, shape) in config.tensors() {
            let array = start.take(&name, &shape)?;
            let zeros = trainable::placeholder(array.shape(), dtype.mlx())?;
            hollow.insert(name.clone(), zeros);
            weights.insert(name, array);
        }
        let model = Model::new(config, Weights::from_tensors(hollow), dtype)?;
        let adapter = Adapter {
            kind: AdapterKind::Full,
            modules: std::collections::BTreeMap::new(),
            weights,
            dropout: 0.0,
            tied_head: false,
            origin: None,
        };
        Self::new(&model, adapter, options)
    }

    /// Number of trained parameters.
    pub fn parameter_count(&self) -> u64 {
        if let Some(sharding) = &self.sharding {
            return sharding.parameter_count();
        }
        self.parameters.iter().map(|p| p.size() as u64).sum()
    }

    /// Batches trained on so far.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// Number of compiled functions that are kept, one for each layout of batches; 0 if steps are not
    /// compiled.
    pub fn compiled_functions(&self) -> usize {
        self.compiled.as_ref().map_or(0, CompiledStep::len)
    }

    /// The adapter with its current weights.
    pub fn adapter(&self) -> Adapter {
        let mut adapter = self.trainable.adapter().clone();
        adapter.set_tensors(&self.named());
        adapter
    }

    /// Trains on a batch to predict its targets.
    ///
    /// # Errors
    /// [`Error::Option`] for a batch without targets, [`Error::Diverged`] if the loss is not
    /// finite: the parameters are then not usable. [`Error::NonFinite`] or [`Error::Dtype`] if the
    /// model without the adapter is the cause. [`Error::Mlx`] if memory runs out.
    pub fn step(&mut self, batch: &Batch) -> Result<Step> {
        self.unless_failed(|trainer| trainer.train(batch, None))
    }

    /// Trains to prefer the first answer of each pair (arXiv 2305.18290): `batch` holds the chosen
    /// rows, then the rejected ones.
    ///
    /// # Errors
    /// As [`step`](Self::step), and [`Error::Option`] if the reference does not match the batch.
    pub fn step_preference(&mut self, batch: &Batch, preference: &Preference) -> Result<Step> {
        preference.check(batch)?;
        self.unless_failed(|trainer| trainer.train(batch, Some(preference)))
    }

    /// The parameters, f32. With sharding, all processes make them together.
    pub(crate) fn weights(&self) -> Vec<PendingTensor<'_>> {
        self.all_pending(&self.parameters)
    }

    /// The moving average of the parameters, if enabled, as [`weights`](Self::weights).
    pub(crate) fn averaged_weights(&self) -> Option<Vec<PendingTensor<'_>>> {
        Some(self.all_pending(self.average.as_deref()?))
    }

    fn all_pending<'a>(&'a self, arrays: &'a [Array]) -> Vec<PendingTensor<'a>> {
        let named = self.trainable.names().iter().zip(arrays).enumerate();
        let pending = named.map(|(index, (name, array))| self.pending(index, name.clone(), array));
        pending.collect()
    }

    fn train(&mut self, batch: &Batch, preference: Option<&Preference>) -> Result<Step> {
        if batch.target_count() == 0 {
            return Err(no_targets());
        }
        // A new mask for each step, and the same mask if the step is repeated after a resume.
        let dropout_seed = derive_seed(self.options.seed, self.iteration);
        let every = self.options.grad_accumulation_steps as u64;
        let updates = (self.iteration + 1).is_multiple_of(every);
        let learning_rate = self.options.schedule.at(self.optimizer.updates());
        let arguments = Arguments {
            parameters: self.parameters.clone(),
            batch: Some(self.batch_arguments(batch, preference, dropout_seed, None)?),
            gathered: self.gathered.take(),
            share: (updates && every > 1).then(|| Array::from_f32(1.0 / every as f32)),
            update: updates.then(|| self.update_arguments(learning_rate)),
        };
        let mut results = self.evaluated(arguments)?;
        self.gathered = results.gradients.take();
        self.iteration += 1;
        self.report(&results, learning_rate, batch)
    }

    /// The arguments of a step for `batch`, whose gradients are multiplied by `weight`.
    pub(super) fn batch_arguments(
        &self,
        batch: &Batch,
        preference: Option<&Preference>,
        dropout_seed: u64,
        weight: Option<f32>,
    ) -> Result<BatchArguments> {
        let arrays = if self.compiled.is_some() && !self.options.grad_checkpoint {
            BatchArrays::padded(batch)
        } else {
            BatchArrays::new(batch)
        };
        Ok(BatchArguments {
            preference: preference.map(|preference| preference.arrays(batch, &arrays)),
            arrays,
            copies: self.copies.clone(),
            dropout_keys: self.trainable.dropout_keys(dropout_seed)?,
            weight: weight.map(Array::from_f32),
        })
    }

    /// The arguments of an update with `learning_rate`.
    pub(super) fn update_arguments(&self, learning_rate: f32) -> UpdateArguments {
        UpdateArguments {
            slots: self.optimizer.arrays().cloned().collect(),
            average: self.average.clone(),
            rates: self.optimizer.rates(learning_rate),
        }
    }

    /// Runs a step lazily, compiled as far as it can be.
    pub(super) fn call(&mut self, mut arguments: Arguments) -> Result<Results> {
        let checkpoint = self.options.grad_checkpoint;
        let Some(compiled) = &mut self.compiled else {
            return self.function.call(arguments, checkpoint);
        };
        let mut losses = None;
        // Checkpointing evaluates each layer, which a compiled function cannot.
        if arguments.batch.is_some() && checkpoint {
            let update = arguments.update.take();
            let parameters = arguments.parameters.clone();
            let gradients = self.function.call(arguments, checkpoint)?;
            if update.is_none() {
                return Ok(gradients);
            }
            losses = gradients.losses;
            arguments = Arguments {
                parameters,
                batch: None,
                gathered: gradients.gradients,
                share: None,
                update,
            };
        }
        let mut results = match compiled.call(&arguments) {
            Ok(results) => results,
            // The same function without MLX's compilation, or the error of its own.
            Err(_) => {
                self.compiled = None;
                self.function.call(arguments, checkpoint)?
            }
        };
        results.losses = results.losses.or(losses);
        Ok(results)
    }

    /// Makes the copies of parameters that no update computed.
    pub(super) fn cast_parameters(&mut self) -> Result<()> {
        if let Some(copies) = &mut self.copies {
            *copies = self.trainable.copies(&self.parameters)?;
            transforms::eval(copies.iter())?;
        }
        Ok(())
    }

    pub(super) fn named(&self) -> Tensors {
        let names = self.trainable.names().iter().cloned();
        names.zip(self.parameters.iter().cloned()).collect()
    }
}

pub(super) fn no_targets() -> Error {
    Error::Option {
        option: "batch",
        problem: "it has no token to predict".into(),
    }
}
