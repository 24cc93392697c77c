//! Training: one gradient step after another on batches of tokens.
//!
//! [`Trainer`] owns what is trained and the optimizer's memory of it; which batches come, and what
//! is saved when, is its caller's affair: [`crate::finetune`].

mod gradient;
mod loss;
mod optimizer;
mod schedule;
mod state;
mod trainee;

use mlx_rs::{Array, transforms};

pub use loss::{Preference, PreferenceLoss};
pub use optimizer::{Optimizer, OptimizerKind};
pub use schedule::{Schedule, ScheduleKind};

use crate::{
    adapter::Adapter,
    batches::Batch,
    error::{Error, Result},
    model::Model,
    tensor_file::Tensors,
};
use optimizer::OptimizerState;
use trainee::Trainee;

/// How a [`Trainer`] trains.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainerOptions {
    /// The rule by which gradients change what is trained. Default Adam without bias correction,
    /// as in mlx-lm.
    pub optimizer: Optimizer,
    /// The learning rate over time. Default constant 1e-5, as in mlx-lm.
    pub schedule: Schedule,
    /// Batches whose gradients are averaged into one update. Default 1.
    pub grad_accumulation_steps: usize,
    /// Largest length of the gradient, all of it as one vector (PyTorch's `clip_grad_norm_`).
    /// Default none.
    pub clip_norm: Option<f32>,
    /// Keep only each layer's input, and work out the rest again for its gradient: less memory for
    /// more time. Default off.
    pub grad_checkpoint: bool,
    /// Seed of dropout. Default 0.
    pub seed: u64,
}

impl Default for TrainerOptions {
    fn default() -> Self {
        Self {
            optimizer: Optimizer::default(),
            schedule: Schedule::default(),
            grad_accumulation_steps: 1,
            clip_norm: None,
            grad_checkpoint: false,
            seed: 0,
        }
    }
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Batches that have been trained on, this one included.
    pub iteration: u64,
    /// Mean loss over the batch's targets (over its pairs, with preferences), in nats, before the
    /// update.
    pub loss: f32,
    /// Targets in the batch.
    pub targets: usize,
    /// The learning rate of the latest update, or of the next where gradients were only gathered.
    pub learning_rate: f32,
    /// Length of the gradient before it was clipped; with `clip_norm` only, at updates only.
    pub gradient_norm: Option<f32>,
}

/// Trains an adapter, or weights. Belongs to the thread that made it, as MLX arrays do.
#[derive(Debug)]
pub struct Trainer {
    trainee: Trainee,
    options: TrainerOptions,
    parameters: Vec<Array>,
    optimizer: OptimizerState,
    /// Sums of gradients since the last update.
    gathered: Option<Vec<Array>>,
    iteration: u64,
}

impl Trainer {
    /// Trains `adapter` on `model`, which shares its weights with the trainer and is left as it is.
    ///
    /// # Errors
    /// [`Error::Adapter`] if the adapter does not fit, [`Error::Option`] for an option outside its
    /// range or a model that has active adapters.
    pub fn new(model: &Model, adapter: Adapter, options: TrainerOptions) -> Result<Self> {
        options.check()?;
        let trainee = Trainee::new(model, adapter)?;
        let parameters = trainee.start()?;
        let optimizer = OptimizerState::new(options.optimizer, trainee.names(), &parameters)?;
        Ok(Self {
            trainee,
            options,
            parameters,
            optimizer,
            gathered: None,
            iteration: 0,
        })
    }

    /// How many numbers are trained.
    pub fn parameter_count(&self) -> u64 {
        self.parameters.iter().map(|p| p.size() as u64).sum()
    }

    /// Batches trained on so far.
    pub fn iteration(&self) -> u64 {
        self.iteration
    }

    /// What has been trained, as it stands.
    pub fn adapter(&self) -> Adapter {
        let mut adapter = self.trainee.adapter().clone();
        adapter.set_tensors(&self.named());
        adapter
    }

    /// Trains on a batch to predict its targets.
    ///
    /// # Errors
    /// [`Error::Option`] for a batch without targets, [`Error::Diverged`] if the loss is no number:
    /// what has been trained is of no use then. [`Error::Mlx`] if memory runs out.
    pub fn step(&mut self, batch: &Batch) -> Result<Step> {
        self.train(batch, None)
    }

    /// Trains on pairs of answers to prefer the first (arXiv 2305.18290): `batch` holds the chosen
    /// rows, then the rejected ones.
    ///
    /// # Errors
    /// As [`step`](Self::step), and [`Error::Option`] if the reference is not that of the batch.
    pub fn step_preference(&mut self, batch: &Batch, preference: &Preference) -> Result<Step> {
        preference.check(batch)?;
        self.train(batch, Some(preference))
    }

    /// Mean loss over the targets of `batches`, in nats.
    ///
    /// # Errors
    /// [`Error::Option`] if there are none, [`Error::Mlx`] if memory runs out.
    pub fn evaluate<'b>(&self, batches: impl IntoIterator<Item = &'b Batch>) -> Result<f64> {
        let model = self.trainee.model(&self.parameters, None)?;
        let (mut sum, mut count) = (0.0, 0);
        for batch in batches {
            if batch.target_count() > 0 {
                let loss = loss::cross_entropy(&model, batch, self.trainee.trains_head())?;
                sum += f64::from(loss::read(&loss)?) * batch.target_count() as f64;
                count += batch.target_count();
            }
        }
        if count == 0 {
            return Err(no_targets());
        }
        Ok(sum / count as f64)
    }

    /// The summed log-probability of each row's targets: the reference that preferences are
    /// measured against, before the first step.
    ///
    /// # Errors
    /// [`Error::Mlx`] if memory runs out.
    pub fn log_probabilities(&self, batch: &Batch) -> Result<Vec<f32>> {
        let model = self.trainee.model(&self.parameters, None)?;
        let sums = loss::row_log_probabilities(&model, batch, self.trainee.trains_head())?;
        Ok(sums.to_vec_exact::<f32>()?)
    }

    fn train(&mut self, batch: &Batch, preference: Option<&Preference>) -> Result<Step> {
        if batch.target_count() == 0 {
            return Err(no_targets());
        }
        // Another mask each time, and the same one if the step is taken again after a resume.
        let dropout_seed = mix(self.options.seed, self.iteration);
        let (loss, mut gradients) = gradient::loss_and_gradients(
            &self.trainee,
            &self.parameters,
            dropout_seed,
            self.options.grad_checkpoint,
            batch,
            preference,
        )?;
        if let Some(gathered) = self.gathered.take() {
            for (gradient, sum) in gradients.iter_mut().zip(gathered) {
                *gradient = gradient.add(sum)?;
            }
        }
        self.iteration += 1;
        let every = self.options.grad_accumulation_steps as u64;
        let learning_rate = self.options.schedule.at(self.optimizer.updates());
        let mut gradient_norm = None;
        if self.iteration.is_multiple_of(every) {
            if every > 1 {
                let share = Array::from_f32(1.0 / every as f32);
                for gradient in &mut gradients {
                    *gradient = gradient.multiply(&share)?;
                }
            }
            if let Some(most) = self.options.clip_norm {
                gradient_norm = Some(gradient::clip(&mut gradients, most)?);
            }
            self.optimizer
                .update(&mut self.parameters, &gradients, learning_rate)?;
        } else {
            self.gathered = Some(gradients);
        }
        let gathered = self.gathered.iter().flatten();
        let state = self.parameters.iter().chain(self.optimizer.arrays());
        transforms::eval(state.chain(gathered).chain([&loss]).chain(&gradient_norm))?;
        let loss = loss::read(&loss)?;
        if !loss.is_finite() {
            return Err(Error::Diverged {
                iteration: self.iteration,
                loss,
            });
        }
        Ok(Step {
            iteration: self.iteration,
            loss,
            targets: batch.target_count(),
            learning_rate,
            gradient_norm: gradient_norm.as_ref().map(loss::read).transpose()?,
        })
    }

    fn named(&self) -> Tensors {
        let names = self.trainee.names().iter().cloned();
        names.zip(self.parameters.iter().cloned()).collect()
    }
}

impl TrainerOptions {
    fn check(&self) -> Result<()> {
        self.optimizer.check()?;
        self.schedule.check()?;
        if self.grad_accumulation_steps == 0 {
            return Err(Error::Option {
                option: "grad_accumulation_steps",
                problem: "expected at least 1, found 0".into(),
            });
        }
        match self.clip_norm {
            Some(norm) if norm.is_nan() || norm <= 0.0 => Err(Error::Option {
                option: "clip_norm",
                problem: format!("expected a number above 0, found {norm}"),
            }),
            _ => Ok(()),
        }
    }
}

fn no_targets() -> Error {
    Error::Option {
        option: "batch",
        problem: "it has no token to predict".into(),
    }
}

/// A seed made of two numbers (SplitMix64's finaliser).
fn mix(seed: u64, number: u64) -> u64 {
    let mut z = seed ^ number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
