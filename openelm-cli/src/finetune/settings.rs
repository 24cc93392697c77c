//! Options of `openelm finetune`, for the command line and TOML files.

use std::path::PathBuf;

use openelm_core::{
    LanguageModel,
    adapter::{Adapter, AdapterOptions, Keys, LoraOptions, TargetModules},
    finetune::{DataOptions, FinetuneOptions, PreferenceOptions},
    train::{self, ScheduleOptions, TrainerOptions},
};
use serde::Deserialize;

use crate::{
    betas::Betas,
    choices::{Dpo, FineTuneType, LongRow, LrSchedule, Optimizer, Template},
    error::Error,
    hub::{self, Files},
    settings::{all_or_count, count_or_all, defaults, exponent},
};

/// Options that are also valid in a TOML file.
#[derive(clap::Args, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Settings {
    /// Folder, or data set of the Hub, with train.jsonl (or .json, .txt) and, optionally,
    /// valid.jsonl and test.jsonl; or one file
    #[arg(long, value_name = "PATH|REPO")]
    pub(super) data: Option<PathBuf>,

    /// Folder for the adapter, metrics and checkpoints
    #[arg(long, value_name = "FOLDER", default_value = "adapters")]
    pub(super) adapter_path: PathBuf,

    /// Adapter of openelm, mlx-lm or PEFT to start from: a folder or a repository [default: a new
    /// adapter]
    #[arg(long, value_name = "PATH|REPO")]
    pub(super) start_from: Option<PathBuf>,

    /// Fine-tuning method: low-rank adapters (lora, dora) or all weights (full)
    #[arg(long, value_name = "TYPE", default_value_t = new_adapter().kind.into())]
    pub(super) fine_tune_type: FineTuneType,

    /// Rank of the adapter
    #[arg(
        long,
        alias = "lora-rank",
        value_name = "N",
        default_value_t = new_adapter().lora.rank
    )]
    #[serde(alias = "lora-rank")]
    pub(super) rank: usize,

    /// Scale of the adapter's output
    #[arg(long, value_name = "X", conflicts_with = "alpha", default_value_t = new_adapter().lora.scale)]
    pub(super) scale: f32,

    /// Alpha, as in PEFT and CoreNet: sets the scale to alpha / rank
    #[arg(long, value_name = "X")]
    pub(super) alpha: Option<f32>,

    /// With --alpha, use the scale alpha / sqrt(rank) (rsLoRA)
    #[arg(long, conflicts_with = "scale")]
    pub(super) rslora: bool,

    /// Dropout probability of the adapter's input
    #[arg(long, value_name = "P", default_value_t = new_adapter().lora.dropout)]
    pub(super) dropout: f32,

    /// Number of layers to train, counted from the last; -1 is all, also the default of smaller
    /// models
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = count_or_all(new_adapter().targets.num_layers)
    )]
    pub(super) num_layers: i64,

    /// Matrices to train, by the ends of their names, separated by commas:
    /// qkv_proj,out_proj,proj_1,proj_2,token_embeddings [default: all linear layers]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) keys: Option<Vec<String>>,

    /// Matrices to train, by a regular expression that matches the full name
    #[arg(long, value_name = "REGEX", conflicts_with = "keys")]
    pub(super) keys_regex: Option<String>,

    /// With an adapter on the tied embedding, apply it to the output head too, as mlx-lm does
    #[arg(long)]
    pub(super) tied_head: bool,

    /// Number of iterations (batches)
    #[arg(long, value_name = "N", default_value_t = run().iters)]
    pub(super) iters: u64,

    /// Number of epochs, in place of --iters
    #[arg(long, value_name = "N", conflicts_with = "iters")]
    pub(super) epochs: Option<u64>,

    /// Rows per batch
    #[arg(long, value_name = "N", default_value_t = run().batch_size)]
    pub(super) batch_size: usize,

    /// Maximum tokens per row
    #[arg(long, value_name = "N", default_value_t = run().max_seq_length)]
    pub(super) max_seq_length: usize,

    /// With --dpo, cut off longer pairs as TRL does: the prompt to this number of tokens, from its
    /// start, then both answers [default: longer pairs are dropped]
    #[arg(long, value_name = "N")]
    pub(super) max_prompt_length: Option<usize>,

    /// Handling of rows longer than --max-seq-length; their number is printed
    #[arg(long, value_name = "MODE", default_value_t = DataOptions::default().long_rows.into())]
    pub(super) long_rows: LongRow,

    /// Repair the text as ftfy does, as CoreNet: encoding errors, HTML entities, quotes, ligatures,
    /// widths, control characters
    #[arg(long)]
    pub(super) clean_text: bool,

    /// Train on completions only, not on prompts
    #[arg(long)]
    pub(super) mask_prompt: bool,

    /// Chat template of rows of messages, preferences and instructions [default: openelm-instruct;
    /// for rows of instruction and output, instruction, CoreNet's]
    #[arg(long, value_name = "NAME")]
    pub(super) chat_template: Option<Template>,

    /// Optimizer
    #[arg(long, value_name = "NAME", default_value_t = run().trainer.optimizer.kind.into())]
    pub(super) optimizer: Optimizer,

    /// Learning rate
    #[arg(
        long,
        alias = "lr",
        value_name = "X",
        default_value = exponent(ScheduleOptions::default().learning_rate)
    )]
    #[serde(alias = "lr")]
    pub(super) learning_rate: f64,

    /// Learning rate schedule; corenet is CoreNet's cosine
    #[arg(long, value_name = "NAME", default_value_t = ScheduleOptions::default().shape.into())]
    pub(super) lr_schedule: LrSchedule,

    /// Final learning rate of a linear, cosine or corenet schedule
    #[arg(long, value_name = "X", default_value_t = ScheduleOptions::default().end)]
    pub(super) lr_end: f64,

    /// Warm-up updates
    #[arg(long, value_name = "N", default_value_t = ScheduleOptions::default().warmup)]
    pub(super) warmup: u64,

    /// Share of the run's updates that are warm-up, in place of --warmup
    #[arg(long, value_name = "X", conflicts_with = "warmup")]
    pub(super) warmup_ratio: Option<f64>,

    /// Learning rate at the start of the warm-up
    #[arg(long, value_name = "X", default_value_t = ScheduleOptions::default().warmup_init)]
    pub(super) warmup_init: f64,

    /// Decay of the optimizer's moments [default: 0.9,0.999; with lion 0.9,0.99]
    #[arg(long, value_name = "B1,B2")]
    pub(super) betas: Option<Betas>,

    /// Epsilon of Adam and AdamW
    #[arg(long, value_name = "X", default_value = exponent(run().trainer.optimizer.eps))]
    pub(super) eps: f32,

    /// Weight of the z-loss; CoreNet uses 1e-4
    #[arg(long, value_name = "X", default_value_t = run().trainer.z_loss)]
    pub(super) z_loss: f32,

    /// Weight decay
    #[arg(long, value_name = "X", default_value_t = run().trainer.optimizer.weight_decay)]
    pub(super) weight_decay: f32,

    /// Adam bias correction, as in PyTorch
    #[arg(long)]
    pub(super) bias_correction: bool,

    /// Batches per update (gradient accumulation)
    #[arg(long, value_name = "N", default_value_t = run().trainer.grad_accumulation_steps)]
    pub(super) grad_accumulation_steps: usize,

    /// Clip gradients to this global norm [default: no clipping]
    #[arg(long, value_name = "X")]
    pub(super) clip_norm: Option<f32>,

    /// Recompute activations in the backward pass (gradient checkpointing): less memory, slower
    #[arg(long)]
    pub(super) grad_checkpoint: bool,

    /// Iterations between validations
    #[arg(long, value_name = "N", default_value_t = run().steps_per_eval)]
    pub(super) steps_per_eval: u64,

    /// Batches per validation; -1 is all
    #[arg(
        long,
        value_name = "N",
        allow_negative_numbers = true,
        default_value_t = count_or_all(run().val_batches)
    )]
    pub(super) val_batches: i64,

    /// Iterations between reports
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) steps_per_report: u64,

    /// Iterations between checkpoints
    #[arg(long, value_name = "N", default_value_t = run().save_every)]
    pub(super) save_every: u64,

    /// Stop after this number of consecutive validations without a lower loss
    #[arg(long, value_name = "N")]
    pub(super) patience: Option<u32>,

    /// Train on preference pairs (prompt, chosen, rejected) with this loss
    #[arg(long, value_name = "LOSS")]
    pub(super) dpo: Option<Dpo>,

    /// With --dpo, the strength of the constraint to the reference model
    #[arg(long, value_name = "X", default_value_t = run().preference.beta)]
    pub(super) beta: f32,

    /// Random seed of the adapter, row order and dropout
    #[arg(long, value_name = "N", default_value_t = run().trainer.seed)]
    pub(super) seed: u64,

    /// Reproduce the batches, masks and order of mlx_lm.lora, for comparing results
    #[arg(long)]
    pub(super) mlx_lm_compat: bool,

    /// Measure the loss on the test data after training
    #[arg(long)]
    pub(super) test: bool,
}

fn new_adapter() -> AdapterOptions {
    AdapterOptions::default()
}

fn run() -> FinetuneOptions {
    FinetuneOptions::default()
}

impl Default for Settings {
    fn default() -> Self {
        defaults()
    }
}

impl Settings {
    /// Downloads the data and the adapter if they are names of repositories.
    pub(super) fn fetch(&mut self, quiet: bool) -> Result<(), Error> {
        if let Some(data) = &mut self.data {
            *data = hub::local(data, &Files::Dataset, quiet)?;
        }
        if let Some(start) = &mut self.start_from {
            *start = hub::local(start, &Files::Adapter, quiet)?;
        }
        Ok(())
    }

    /// The run's options; `batches` is the number of batches per epoch, for --epochs.
    pub(super) fn options(&self, batches: u64) -> FinetuneOptions {
        let iters = match self.epochs {
            Some(epochs) => epochs.saturating_mul(batches),
            None => self.iters,
        };
        let updates = iters / (self.grad_accumulation_steps as u64).max(1);
        let warmup = match self.warmup_ratio {
            // As in Hugging Face's trainer.
            Some(ratio) => (updates as f64 * ratio).ceil() as u64,
            None => self.warmup,
        };
        let schedule = ScheduleOptions {
            shape: self.lr_schedule.into(),
            learning_rate: self.learning_rate,
            end: self.lr_end,
            warmup,
            warmup_init: self.warmup_init,
        };
        let optimizer = train::Optimizer::new(self.optimizer.into());
        FinetuneOptions {
            trainer: TrainerOptions {
                optimizer: train::Optimizer {
                    weight_decay: self.weight_decay,
                    bias_correction: self.bias_correction,
                    decay_vectors: self.mlx_lm_compat,
                    betas: self.betas.map_or(optimizer.betas, |betas| betas.0),
                    eps: self.eps,
                    ..optimizer
                },
                schedule: schedule.schedule(iters, self.grad_accumulation_steps),
                grad_accumulation_steps: self.grad_accumulation_steps,
                clip_norm: self.clip_norm,
                grad_checkpoint: self.grad_checkpoint,
                z_loss: self.z_loss,
                seed: self.seed,
                ..TrainerOptions::default()
            },
            iters,
            batch_size: self.batch_size,
            max_seq_length: self.max_seq_length,
            steps_per_eval: self.steps_per_eval,
            val_batches: all_or_count(self.val_batches),
            save_every: self.save_every,
            patience: self.patience,
            preference: PreferenceOptions {
                loss: self.dpo.map_or(run().preference.loss, Into::into),
                beta: self.beta,
            },
            mlx_lm_compat: self.mlx_lm_compat,
        }
    }

    /// Checks the options that the core does not have.
    pub(super) fn check(&self) -> Result<(), Error> {
        let wrong = |problem: String| Err(Error::Usage(problem));
        match (self.alpha, self.warmup_ratio) {
            (Some(alpha), _) if !alpha.is_finite() => {
                wrong(format!("--alpha: expected a number, found {alpha}"))
            }
            (_, Some(ratio)) if !(0.0..=1.0).contains(&ratio) => {
                wrong(format!("--warmup-ratio: expected 0 to 1, found {ratio}"))
            }
            _ if self.epochs == Some(0) => wrong("--epochs: expected at least 1, found 0".into()),
            _ => Ok(()),
        }
    }

    /// Options for reading the data.
    pub(super) fn data_options(&self) -> DataOptions {
        DataOptions {
            mask_prompt: self.mask_prompt,
            long_rows: self.long_rows.into(),
            chat_template: self.chat_template.map(Into::into),
            clean_text: self.clean_text,
            max_prompt_length: self.max_prompt_length,
            preferences: self.dpo.is_some(),
            test: self.test,
        }
    }

    /// The adapter of --start-from, or a new one.
    pub(super) fn adapter(&self, model: &LanguageModel) -> Result<Adapter, Error> {
        Ok(match &self.start_from {
            Some(folder) => Adapter::load(folder)?,
            None => Adapter::new(model.model(), &self.adapter_options(), self.seed)?,
        })
    }

    /// Names the folder of --start-from in an error of its adapter.
    pub(super) fn of_start(&self, error: openelm_core::Error) -> Error {
        match (error, &self.start_from) {
            (
                openelm_core::Error::Option {
                    option: "adapter",
                    problem,
                },
                Some(folder),
            ) => openelm_core::Error::Adapter {
                path: folder.clone(),
                problem,
            }
            .into(),
            (error, _) => error.into(),
        }
    }

    /// Options of a new adapter.
    pub(super) fn adapter_options(&self) -> AdapterOptions {
        let scale_of = |alpha| LoraOptions::scale_of(alpha, self.rank, self.rslora);
        AdapterOptions {
            kind: self.fine_tune_type.into(),
            lora: LoraOptions {
                rank: self.rank,
                scale: self.alpha.map_or(self.scale, scale_of),
                dropout: self.dropout,
                tied_head: self.tied_head,
                ..LoraOptions::default()
            },
            targets: TargetModules {
                num_layers: all_or_count(self.num_layers),
                keys: match (&self.keys, &self.keys_regex) {
                    (Some(names), _) => Keys::Names(names.clone()),
                    (None, Some(pattern)) => Keys::Regex(pattern.clone()),
                    (None, None) => Keys::default(),
                },
            },
        }
    }
}

#[cfg(test)]
mod tests;
