//! What `openelm finetune` can be told, on the command line or in a TOML file.

use std::path::PathBuf;

use openelm_core::{
    LanguageModel,
    adapter::{Adapter, Keys, LoraOptions, TargetModules},
    dataset::LongRows,
    finetune::{DataOptions, FinetuneOptions, PreferenceOptions},
    train::{
        Optimizer, OptimizerKind, PreferenceLoss, ScheduleOptions, ScheduleShape, TrainerOptions,
    },
};
use serde::Deserialize;

use crate::{error::Error, settings::one_of};

/// What a TOML file can hold as well.
#[derive(clap::Args, Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Settings {
    /// Folder with train.jsonl, and valid.jsonl and test.jsonl if there are; or one file
    #[arg(long, value_name = "FOLDER")]
    pub(super) data: Option<PathBuf>,

    /// Folder for the adapter, its metrics and the state to resume from [default: adapters]
    #[arg(long, value_name = "FOLDER")]
    pub(super) adapter_path: Option<PathBuf>,

    /// Adapter to begin with, in place of a new one
    #[arg(long, value_name = "FOLDER")]
    pub(super) start_from: Option<PathBuf>,

    /// What to train: lora, dora or full [default: lora]
    #[arg(long, value_name = "TYPE")]
    pub(super) fine_tune_type: Option<String>,

    /// Width of the low-rank matrices [default: 8]
    #[arg(long, value_name = "N")]
    pub(super) rank: Option<usize>,

    /// What the adapter's output is multiplied by [default: 20]
    #[arg(long, value_name = "X", conflicts_with = "alpha")]
    pub(super) scale: Option<f32>,

    /// The scale in PEFT's and CoreNet's words: alpha / rank
    #[arg(long, value_name = "X")]
    pub(super) alpha: Option<f32>,

    /// With --alpha: alpha / sqrt(rank), as rsLoRA has it
    #[arg(long, requires = "alpha")]
    pub(super) rslora: bool,

    /// Share of the adapter's input that is dropped in training [default: 0]
    #[arg(long, value_name = "P")]
    pub(super) dropout: Option<f32>,

    /// How many layers to train, from the last one back; -1 is all [default: 16, or all if there
    /// are fewer]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) num_layers: Option<i64>,

    /// Matrices to train, by their names' ends, separated by commas: qkv_proj,out_proj,proj_1,
    /// proj_2,token_embeddings [default: every projection]
    #[arg(long, value_name = "NAMES", value_delimiter = ',')]
    pub(super) keys: Option<Vec<String>>,

    /// Matrices to train, by a regular expression for their whole names
    #[arg(long, value_name = "REGEX", conflicts_with = "keys")]
    pub(super) keys_regex: Option<String>,

    /// Where the embedding is adapted: adapt the head that shares it, too, as mlx-lm does
    #[arg(long)]
    pub(super) tied_head: bool,

    /// Iterations (batches) to train for [default: 1000]
    #[arg(long, value_name = "N")]
    pub(super) iters: Option<u64>,

    /// Rows in a batch [default: 4]
    #[arg(long, value_name = "N")]
    pub(super) batch_size: Option<usize>,

    /// The most tokens in a row [default: 2048]
    #[arg(long, value_name = "N")]
    pub(super) max_seq_length: Option<usize>,

    /// Longer rows: split them, or drop them; both are counted [default: split]
    #[arg(long, value_name = "HOW")]
    pub(super) long_rows: Option<String>,

    /// Learn completions only, not prompts
    #[arg(long)]
    pub(super) mask_prompt: bool,

    /// adam, adamw, sgd, lion or adafactor [default: adam]
    #[arg(long, value_name = "NAME")]
    pub(super) optimizer: Option<String>,

    /// Learning rate [default: 1e-5]
    #[arg(long, value_name = "X")]
    pub(super) learning_rate: Option<f64>,

    /// Course of the learning rate: constant, linear or cosine [default: constant]
    #[arg(long, value_name = "NAME")]
    pub(super) lr_schedule: Option<String>,

    /// The learning rate at the end of a linear or cosine course [default: 0]
    #[arg(long, value_name = "X")]
    pub(super) lr_end: Option<f64>,

    /// Updates in which the learning rate grows from 0 [default: 0]
    #[arg(long, value_name = "N")]
    pub(super) warmup: Option<u64>,

    /// Weight decay [default: 0]
    #[arg(long, value_name = "X")]
    pub(super) weight_decay: Option<f32>,

    /// Adam: correct the moments' start at zero, as PyTorch does
    #[arg(long)]
    pub(super) bias_correction: bool,

    /// Batches whose gradients make one update [default: 1]
    #[arg(long, value_name = "N")]
    pub(super) grad_accumulation_steps: Option<usize>,

    /// Longest gradient; longer ones are scaled down [default: no limit]
    #[arg(long, value_name = "X")]
    pub(super) clip_norm: Option<f32>,

    /// Work out layers again for their gradients: less memory, more time
    #[arg(long)]
    pub(super) grad_checkpoint: bool,

    /// Iterations between validations [default: 200]
    #[arg(long, value_name = "N")]
    pub(super) steps_per_eval: Option<u64>,

    /// Batches of a validation; -1 is all [default: 25]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) val_batches: Option<i64>,

    /// Iterations between reports [default: 10]
    #[arg(long, value_name = "N")]
    pub(super) steps_per_report: Option<u64>,

    /// Iterations between saves [default: 100]
    #[arg(long, value_name = "N")]
    pub(super) save_every: Option<u64>,

    /// End after this many validations in a row without a better one
    #[arg(long, value_name = "N")]
    pub(super) patience: Option<u32>,

    /// Learn preferences from prompt, chosen and rejected: sigmoid (DPO) or hinge
    #[arg(long, value_name = "LOSS")]
    pub(super) dpo: Option<String>,

    /// With --dpo: how strongly the model is held to where it began [default: 0.01]
    #[arg(long, value_name = "X")]
    pub(super) beta: Option<f32>,

    /// Seed of the adapter's start, the order of rows and dropout [default: 0]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,

    /// Batches, masks and their order as mlx_lm.lora has them, to compare with it
    #[arg(long)]
    pub(super) mlx_lm_compat: bool,

    /// Measure the loss on the test data at the end
    #[arg(long)]
    pub(super) test: bool,
}

impl Settings {
    /// These, and where they say nothing, `file`.
    pub(super) fn over(self, file: Self) -> Self {
        macro_rules! merge {
            (options: $($option:ident)*; switches: $($switch:ident)*) => {
                Self {
                    $($option: self.$option.or(file.$option),)*
                    $($switch: self.$switch || file.$switch,)*
                }
            };
        }
        merge! {
            options: data adapter_path start_from fine_tune_type rank scale alpha dropout num_layers
                keys keys_regex iters batch_size max_seq_length long_rows optimizer learning_rate
                lr_schedule lr_end warmup weight_decay grad_accumulation_steps clip_norm
                steps_per_eval val_batches steps_per_report save_every patience dpo beta seed;
            switches: rslora tied_head mask_prompt bias_correction grad_checkpoint mlx_lm_compat test
        }
    }

    /// Of the run.
    pub(super) fn options(&self) -> Result<FinetuneOptions, Error> {
        let defaults = FinetuneOptions::default();
        let kind = one_of(
            "optimizer",
            self.optimizer.as_deref().unwrap_or("adam"),
            &[
                ("adam", OptimizerKind::Adam),
                ("adamw", OptimizerKind::AdamW),
                ("sgd", OptimizerKind::Sgd),
                ("lion", OptimizerKind::Lion),
                ("adafactor", OptimizerKind::Adafactor),
            ],
        )?;
        let iters = self.iters.unwrap_or(defaults.iters);
        let accumulated = self.grad_accumulation_steps.unwrap_or(1);
        let shape = one_of(
            "lr-schedule",
            self.lr_schedule.as_deref().unwrap_or("constant"),
            &[
                ("constant", ScheduleShape::Constant),
                ("linear", ScheduleShape::Linear),
                ("cosine", ScheduleShape::Cosine),
            ],
        )?;
        let schedule = ScheduleOptions {
            shape,
            learning_rate: self.learning_rate.unwrap_or(1e-5),
            end: self.lr_end.unwrap_or(0.0),
            warmup: self.warmup.unwrap_or(0),
        };
        let preference = one_of(
            "dpo",
            self.dpo.as_deref().unwrap_or("sigmoid"),
            &[
                ("sigmoid", PreferenceLoss::Sigmoid),
                ("hinge", PreferenceLoss::Hinge),
            ],
        )?;
        Ok(FinetuneOptions {
            trainer: TrainerOptions {
                optimizer: Optimizer {
                    weight_decay: self.weight_decay.unwrap_or(0.0),
                    bias_correction: self.bias_correction,
                    decay_vectors: self.mlx_lm_compat,
                    ..Optimizer::new(kind)
                },
                schedule: schedule.schedule(iters, accumulated),
                grad_accumulation_steps: accumulated,
                clip_norm: self.clip_norm,
                grad_checkpoint: self.grad_checkpoint,
                seed: self.seed.unwrap_or(0),
                ..TrainerOptions::default()
            },
            iters,
            batch_size: self.batch_size.unwrap_or(defaults.batch_size),
            max_seq_length: self.max_seq_length.unwrap_or(defaults.max_seq_length),
            steps_per_eval: self.steps_per_eval.unwrap_or(defaults.steps_per_eval),
            val_batches: match self.val_batches {
                None => defaults.val_batches,
                Some(count) => usize::try_from(count).ok(),
            },
            save_every: self.save_every.unwrap_or(defaults.save_every),
            patience: self.patience,
            preference: PreferenceOptions {
                loss: preference,
                beta: self.beta.unwrap_or(defaults.preference.beta),
            },
            mlx_lm_compat: self.mlx_lm_compat,
        })
    }

    /// Of reading the data.
    pub(super) fn data_options(&self) -> Result<DataOptions, Error> {
        let long_rows = [("split", LongRows::Split), ("drop", LongRows::Drop)];
        Ok(DataOptions {
            mask_prompt: self.mask_prompt,
            long_rows: one_of(
                "long-rows",
                self.long_rows.as_deref().unwrap_or("split"),
                &long_rows,
            )?,
            preferences: self.dpo.is_some(),
            test: self.test,
        })
    }

    /// What is trained, new or as it was left elsewhere.
    pub(super) fn adapter(&self, model: &LanguageModel, seed: u64) -> Result<Adapter, Error> {
        if let Some(folder) = &self.start_from {
            return Ok(Adapter::load(folder)?);
        }
        let model = model.model();
        let targets = TargetModules {
            num_layers: match self.num_layers {
                None => TargetModules::default().num_layers,
                Some(-1) => None,
                Some(count) => Some(usize::try_from(count).unwrap_or(0)),
            },
            keys: match (&self.keys, &self.keys_regex) {
                (Some(names), _) => Keys::Names(names.clone()),
                (None, Some(pattern)) => Keys::Regex(pattern.clone()),
                (None, None) => Keys::AllProjections,
            },
        };
        let kind = self.fine_tune_type.as_deref().unwrap_or("lora");
        let kinds = [("lora", Some(false)), ("dora", Some(true)), ("full", None)];
        let Some(dora) = one_of("fine-tune-type", kind, &kinds)? else {
            return Ok(Adapter::full(model, &targets)?);
        };
        let defaults = LoraOptions::default();
        let rank = self.rank.unwrap_or(defaults.rank);
        let scale = match self.alpha {
            Some(alpha) => LoraOptions::scale_of(alpha, rank, self.rslora),
            None => self.scale.unwrap_or(defaults.scale),
        };
        let options = LoraOptions {
            rank,
            scale,
            dropout: self.dropout.unwrap_or(defaults.dropout),
            dora,
            tied_head: self.tied_head,
        };
        Ok(Adapter::lora(model, &targets, &options, seed)?)
    }
}
