//! CoreNet's recipe, and the options of a run.

use std::path::PathBuf;

use crate::{
    config::Preset,
    error::{Error, Result},
    mlx::{Device, Dtype},
    training::{Optimizer, OptimizerKind, Schedule, ScheduleKind, TrainerOptions},
};

/// The settings that differ between CoreNet's recipes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Updates of the whole run.
    pub iters: u64,
    /// The highest learning rate; a tenth of it is the last. Default that of the preset, and
    /// 3e-3 without one.
    pub learning_rate: f64,
    /// Updates in which the rate grows to it from 1e-6. Default 5000, or a tenth of the updates
    /// if that is less.
    pub warmup: u64,
}

impl Recipe {
    /// The defaults of a run of `iters` updates, for a model of the size `preset` or of another.
    pub fn new(iters: u64, preset: Option<Preset>) -> Self {
        Self {
            iters,
            learning_rate: preset.map_or(3e-3, Self::learning_rate_of),
            warmup: 5000.min(iters / 10),
        }
    }

    /// The highest learning rate that CoreNet trained a size with.
    pub fn learning_rate_of(preset: Preset) -> f64 {
        match preset {
            Preset::Size270M => 5.3e-3,
            Preset::Size450M => 3.9e-3,
            Preset::Size1_1B => 2.4e-3,
            Preset::Size3B => 1.2e-3,
        }
    }

    /// AdamW with moments 0.9 and 0.95, weight decay 0.1 on matrices, gradients clipped to 1,
    /// CoreNet's cosine, and z-loss 1e-4.
    pub fn trainer(self) -> TrainerOptions {
        TrainerOptions {
            optimizer: Optimizer {
                betas: [0.9, 0.95],
                eps: 1e-8,
                weight_decay: 0.1,
                bias_correction: true,
                ..Optimizer::new(OptimizerKind::AdamW)
            },
            schedule: Schedule {
                kind: ScheduleKind::CoreNet {
                    end: 0.1 * self.learning_rate,
                    max_iterations: self.iters,
                },
                learning_rate: self.learning_rate,
                warmup: self.warmup,
                warmup_init: 1e-6,
            },
            clip_norm: Some(1.0),
            z_loss: 1e-4,
            ..TrainerOptions::default()
        }
    }
}

/// Options of a [`Pretrain`](crate::training::pretrain::pretrain::Pretrain).
#[derive(Debug, Clone, PartialEq)]
pub struct PretrainOptions {
    /// Options of each update; [`Recipe::trainer`] gives CoreNet's. Its `grad_accumulation_steps`
    /// has no effect: `batch_size` and `micro_batch_size` take its place.
    pub trainer: TrainerOptions,
    /// Updates of the whole run.
    pub iters: u64,
    /// Sequences of an update, those of all processes together: a multiple of their number.
    /// CoreNet's is 2,048 of 2,048 tokens. Default 32.
    pub batch_size: usize,
    /// Sequences that a process computes with at a time; the rest of its share follow, and their
    /// gradients are added. Default 8.
    pub micro_batch_size: usize,
    /// A model's folder, whose weights a new run starts from instead of random ones. A run that is
    /// resumed has its own and does not look at it. Default none.
    pub model: Option<PathBuf>,
    /// Seed of the initial weights. Default 0.
    pub seed: u64,
    /// The type to compute in; what is trained is f32 whatever it is. Default f32 on a CPU, where
    /// MLX's 16-bit kernels are slow, and bf16 on a GPU.
    pub dtype: Option<Dtype>,
    /// The type that weights are saved in. Default f32.
    pub save_dtype: Dtype,
    /// Updates between validations. Default 500. There is one after the last update.
    pub steps_per_eval: u64,
    /// The most batches of a validation, of `batch_size` windows each; `None` all. Default all.
    pub val_batches: Option<usize>,
    /// Updates between saves. Default 500. The last update is saved, too.
    pub save_every: u64,
    /// Checkpoints that are kept; older ones are deleted. Default 5.
    pub keep_checkpoints: usize,
    /// Number of the last checkpoints that the final `average` is made of; 0 or 1 is no average.
    /// Default 5, as in CoreNet, or as many as are kept.
    pub average_last: Option<usize>,
    /// A tokenizer's file or folder, to be copied into every checkpoint. Default none.
    pub tokenizer: Option<PathBuf>,
}

impl PretrainOptions {
    /// The recipe's options.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            trainer: recipe.trainer(),
            iters: recipe.iters,
            batch_size: 32,
            micro_batch_size: 8,
            model: None,
            seed: 0,
            dtype: None,
            save_dtype: Dtype::Float32,
            steps_per_eval: 500,
            val_batches: None,
            save_every: 500,
            keep_checkpoints: 5,
            average_last: None,
            tokenizer: None,
        }
    }

    /// The most windows of a validation.
    pub(crate) fn val_windows(&self) -> Option<usize> {
        let windows = |batches: usize| batches.saturating_mul(self.batch_size);
        self.val_batches.map(windows)
    }

    /// Number of the last checkpoints that are averaged.
    pub fn averaged(&self) -> usize {
        self.average_last.unwrap_or(self.keep_checkpoints.min(5))
    }

    /// The type to compute in.
    pub(crate) fn dtype(&self) -> Result<Dtype> {
        match self.dtype {
            // Its range is too small for gradients, and nothing here scales a loss.
            Some(Dtype::Float16) => Err(Error::Dtype {
                dtype: Dtype::Float16.to_string(),
                problem: "gradients vanish in its range; train in bfloat16 or float32".into(),
            }),
            Some(dtype) => Ok(dtype),
            None => Ok(match Device::current()? {
                Device::Cpu => Dtype::Float32,
                Device::Gpu => Dtype::Bfloat16,
            }),
        }
    }

    pub(crate) fn check(&self, processes: usize) -> Result<()> {
        let zero = [
            ("iters", self.iters),
            ("batch_size", self.batch_size as u64),
            ("micro_batch_size", self.micro_batch_size as u64),
            ("steps_per_eval", self.steps_per_eval),
            ("save_every", self.save_every),
            ("val_batches", self.val_batches.unwrap_or(1) as u64),
            ("keep_checkpoints", self.keep_checkpoints as u64),
        ];
        if let Some(&(option, _)) = zero.iter().find(|(_, value)| *value == 0) {
            return Err(Error::Option {
                option,
                problem: "expected at least 1, found 0".into(),
            });
        }
        if !self.batch_size.is_multiple_of(processes) {
            return Err(Error::Option {
                option: "batch_size",
                problem: format!(
                    "expected a multiple of {processes}, the number of processes; found {}",
                    self.batch_size
                ),
            });
        }
        if self.averaged() > self.keep_checkpoints {
            return Err(Error::Option {
                option: "average_last",
                problem: format!(
                    "expected at most {}, the checkpoints that are kept; found {}",
                    self.keep_checkpoints,
                    self.averaged()
                ),
            });
        }
        Ok(())
    }
}
