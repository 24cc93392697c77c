//! CoreNet's recipe, and the options of a run.

use std::path::PathBuf;

use super::source::sequences_bytes;
use crate::{
    config::{Config, Preset},
    error::{Error, Result},
    mlx::{Device, Dtype, memory},
    training::{
        Optimizer, OptimizerKind, Schedule, ScheduleKind, TrainerOptions,
        state_memory::bytes_per_parameter,
    },
};

/// The settings that differ between CoreNet's recipes.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Recipe {
    /// Number of updates of the whole run.
    pub iters: u64,
    /// Peak learning rate; the final rate is a tenth of it. Default: that of
    /// [`learning_rate_of`](Self::learning_rate_of), or 3e-3 without a preset.
    pub learning_rate: f64,
    /// Warm-up updates, in which the rate grows linearly from 1e-6. Default 5000, or a tenth of
    /// the updates if that is less.
    pub warmup: u64,
}

impl Recipe {
    /// Tokens per update of CoreNet's recipes: 2,048 sequences of 2,048 tokens.
    pub const CORENET_TOKENS: u64 = 2048 * 2048;

    /// The defaults of a run of `iters` updates of `tokens` tokens each, for a model of the size
    /// `preset` or a custom size.
    pub fn new(iters: u64, tokens: u64, preset: Option<Preset>) -> Self {
        Self {
            iters,
            learning_rate: preset.map_or(3e-3, |preset| Self::learning_rate_of(preset, tokens)),
            warmup: 5000.min(iters / 10),
        }
    }

    /// The peak learning rate for updates of `tokens` tokens: that of CoreNet's recipe for the
    /// size, times `sqrt(tokens / 2^22)` for smaller updates (the square root scaling rule of
    /// adaptive optimizers, arXiv 2205.10287). To three digits.
    pub fn learning_rate_of(preset: Preset, tokens: u64) -> f64 {
        let rate = Self::corenet_learning_rate(preset);
        if tokens >= Self::CORENET_TOKENS {
            return rate;
        }
        // A batch without tokens is refused by its own option.
        let tokens = tokens.max(1);
        let scaled = rate * (tokens as f64 / Self::CORENET_TOKENS as f64).sqrt();
        let digits = 10_f64.powi(2 - scaled.log10().floor() as i32);
        (scaled * digits).round() / digits
    }

    /// The peak learning rate of CoreNet's recipe for a size.
    pub fn corenet_learning_rate(preset: Preset) -> f64 {
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
    /// Number of updates of the whole run.
    pub iters: u64,
    /// Sequences per update, over all processes: a multiple of the number of processes. CoreNet:
    /// 2,048 of 2,048 tokens. Default 32.
    pub batch_size: usize,
    /// Sequences that a process computes with at a time; the rest of its share follow, and their
    /// gradients are added. Default 8.
    pub micro_batch_size: usize,
    /// Each process of a group keeps its part of the weights, their gradients and the optimizer's
    /// state only (fully sharded data parallel, arXiv 2304.11277), and computes one layer at a time
    /// as with `grad_checkpoint`. No effect without a group. Default off.
    pub fsdp: bool,
    /// Model folder, or file of CoreNet, with the initial weights of a new run, instead of random
    /// ones; a training checkpoint of CoreNet continues at its iteration
    /// ([`CoreNetCheckpoint`](super::CoreNetCheckpoint)). Ignored on resume. Default none.
    pub model: Option<PathBuf>,
    /// Seed of the initial weights. Default 0.
    pub seed: u64,
    /// Dtype of the computation; trained parameters are always f32. Default f32 on a CPU, where
    /// MLX's 16-bit kernels are slow, and bf16 on a GPU.
    pub dtype: Option<Dtype>,
    /// Dtype of the saved weights. Default f32.
    pub save_dtype: Dtype,
    /// Updates between validations. Default 500. The run also validates after the last update.
    pub steps_per_eval: u64,
    /// Largest number of batches per validation, of `batch_size` windows each; `None`, the default,
    /// is all.
    pub val_batches: Option<usize>,
    /// Updates between saves. Default 500. The last update is also saved.
    pub save_every: u64,
    /// Number of checkpoints to keep; older ones are deleted. Default 5.
    pub keep_checkpoints: usize,
    /// Number of the last checkpoints in the final `average`; 0 or 1 disables the average. Default
    /// 5, as in CoreNet, or the number of kept checkpoints if that is less.
    pub average_last: Option<usize>,
    /// Tokenizer file or folder to copy into every checkpoint. Default none.
    pub tokenizer: Option<PathBuf>,
}

impl PretrainOptions {
    /// The options of the recipe.
    pub fn new(recipe: Recipe) -> Self {
        Self {
            trainer: recipe.trainer(),
            iters: recipe.iters,
            batch_size: 32,
            micro_batch_size: 8,
            fsdp: false,
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

    /// Largest number of windows per validation.
    pub(crate) fn val_windows(&self) -> Option<usize> {
        let windows = |batches: usize| batches.saturating_mul(self.batch_size);
        self.val_batches.map(windows)
    }

    /// Number of the last checkpoints that are averaged.
    pub fn averaged(&self) -> usize {
        self.average_last.unwrap_or(self.keep_checkpoints.min(5))
    }

    /// Dtype of the computation.
    pub(crate) fn dtype(&self) -> Result<Dtype> {
        match self.dtype {
            Some(dtype) if self.trainer.autocast && dtype != Dtype::Bfloat16 => {
                let problem = format!("expected bfloat16 with autocast, found {dtype}");
                Err(Error::option("dtype", problem))
            }
            _ if self.trainer.autocast => Ok(Dtype::Bfloat16),
            // The range of float16 is too small for gradients without loss scaling.
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

    /// Checks every option's range, for a run of `processes` processes.
    ///
    /// # Errors
    /// [`Error::Option`] names the first option out of range.
    pub fn check(&self, processes: usize) -> Result<()> {
        if processes == 0 {
            return Err(Error::at_least("processes", 1, 0));
        }
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
        if processes > self.batch_size {
            let most = self.batch_size;
            let problem = format!("expected at most {most}, the batch size, found {processes}");
            return Err(Error::option("processes", problem));
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
                    "expected at most {}, the number of kept checkpoints; found {}",
                    self.keep_checkpoints,
                    self.averaged()
                ),
            });
        }
        Ok(())
    }

    /// Refuses sizes of the model and of batches that MLX cannot address, or that do not fit into
    /// memory. A sequence has `length` tokens, if they have one length.
    pub(crate) fn check_sizes(
        &self,
        config: &Config,
        length: Option<usize>,
        processes: usize,
    ) -> Result<()> {
        let share = self.batch_size / processes.max(1);
        let bytes = sequences_bytes(share, length);
        memory::check_fits("batch_size", self.batch_size, bytes)?;
        let rows = self.micro_batch_size.min(share);
        let (tokens, most) = (rows.saturating_mul(length.unwrap_or(1)), i32::MAX as usize);
        if tokens > most {
            let problem = format!(
                "expected batches of at most {most} tokens, found {rows} sequences with {tokens} \
                 tokens"
            );
            return Err(Error::option("micro_batch_size", problem));
        }
        // The input and the output of a layer, in 16 bits.
        let bytes = tokens as u128 * 4 * config.model_dim() as u128;
        memory::check_fits("micro_batch_size", self.micro_batch_size, bytes)?;
        let parameters = config.parameter_count();
        let found = format!("a model of {parameters} parameters");
        let parts = if self.fsdp { processes.max(1) } else { 1 };
        let bytes = u128::from(parameters) * u128::from(bytes_per_parameter(&self.trainer));
        memory::check_fits("model_dim", found, bytes / parts as u128)
    }
}
