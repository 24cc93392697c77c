//! What `openelm pretrain` can be told, on the command line or in a TOML file.

use std::path::PathBuf;

use openelm_core::{
    Config, Dtype, Tokenizer,
    config::{LayerWiseConfig, Multipliers, Preset},
    pretrain::{PretrainOptions, Recipe, new_architecture},
};
use serde::Deserialize;

use crate::error::Error;

/// What a TOML file can hold as well.
#[derive(clap::Args, Deserialize, Default, Clone)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Settings {
    /// Files, folders and patterns to train on, separated by commas: .jsonl, .json and .txt (also
    /// .gz and .zst), .parquet
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub(super) data: Option<Vec<PathBuf>>,

    /// Held-out files
    #[arg(long, value_name = "FILES", value_delimiter = ',')]
    pub(super) valid: Option<Vec<PathBuf>>,

    /// The key of the text in a JSON line [default: text]
    #[arg(long, value_name = "KEY")]
    pub(super) text_key: Option<String>,

    /// Folder of a model to go on training, instead of a new one from random weights
    #[arg(long, value_name = "FOLDER")]
    pub(super) from: Option<PathBuf>,

    /// Tokenizer: a tokenizer.json or tokenizer.model, or a folder that holds one [default: that
    /// of --from]
    #[arg(long, value_name = "PATH")]
    pub(super) tokenizer: Option<PathBuf>,

    /// Folder for checkpoints, metrics and the state to resume from [default: pretrained]
    #[arg(long, short, value_name = "FOLDER")]
    pub(super) output: Option<PathBuf>,

    /// Updates to make
    #[arg(long, value_name = "N")]
    pub(super) steps: Option<u64>,

    /// Sequences of an update, those of all processes together [default: 32]
    #[arg(long, value_name = "N")]
    pub(super) batch_size: Option<usize>,

    /// Sequences that a process computes with at a time [default: 8]
    #[arg(long, value_name = "N")]
    pub(super) micro_batch_size: Option<usize>,

    /// Tokens of a sequence [default: the model's max_context_length]
    #[arg(long, value_name = "N")]
    pub(super) sequence_length: Option<usize>,

    /// What makes a sequence: pack (documents one after another) or truncate (the beginning of
    /// one, as CoreNet) [default: pack]
    #[arg(long, value_name = "HOW")]
    pub(super) assembly: Option<String>,

    /// Words of a fragment that documents are split into [default: 2048]
    #[arg(long, value_name = "N")]
    pub(super) words_per_fragment: Option<usize>,

    /// Leave out fragments with fewer characters than this [default: 200 with truncate, 0 with pack]
    #[arg(long, value_name = "N")]
    pub(super) min_characters: Option<usize>,

    /// Leave out fragments with fewer tokens than this [default: 256 with truncate, 0 with pack]
    #[arg(long, value_name = "N")]
    pub(super) min_tokens: Option<usize>,

    /// Files that are read in turns, a document of each [default: 1]
    #[arg(long, value_name = "N")]
    pub(super) readers: Option<usize>,

    /// Sequences that are shuffled together; 0 keeps the order of the files [default: 4096 with
    /// pack, 0 with truncate, as CoreNet]
    #[arg(long, value_name = "N")]
    pub(super) shuffle: Option<usize>,

    /// Passes over the data, after which the run ends even before its steps [default: no limit]
    #[arg(long, value_name = "N")]
    pub(super) epochs: Option<u64>,

    /// Leave out files and rows that cannot be read, instead of stopping at the first
    #[arg(long)]
    pub(super) skip_corrupt: bool,

    /// The highest learning rate; the last is a tenth of it [default: the preset's, else 3e-3]
    #[arg(long, value_name = "X")]
    pub(super) learning_rate: Option<f64>,

    /// Updates in which the learning rate grows from 1e-6 [default: 5000, or a tenth of the steps
    /// if that is less]
    #[arg(long, value_name = "N")]
    pub(super) warmup: Option<u64>,

    /// Weight decay of matrices [default: 0.1]
    #[arg(long, value_name = "X")]
    pub(super) weight_decay: Option<f32>,

    /// Longest gradient; longer ones are scaled down [default: 1]
    #[arg(long, value_name = "X")]
    pub(super) clip_norm: Option<f32>,

    /// Weight of the z-loss [default: 1e-4]
    #[arg(long, value_name = "X")]
    pub(super) z_loss: Option<f32>,

    /// Share of a target's weight that is spread over the vocabulary [default: 0]
    #[arg(long, value_name = "X")]
    pub(super) label_smoothing: Option<f32>,

    /// Keep an exponential moving average with this much of the old at every update
    #[arg(long, value_name = "X")]
    pub(super) ema_decay: Option<f32>,

    /// Type to compute in: float32 or bfloat16, with weights in float32 [default: float32 on a
    /// CPU, bfloat16 on a GPU]
    #[arg(long, value_name = "TYPE")]
    pub(super) dtype: Option<String>,

    /// Type of saved weights: float32, bfloat16 or float16 [default: float32]
    #[arg(long, value_name = "TYPE")]
    pub(super) save_dtype: Option<String>,

    /// Work out layers again for their gradients: less memory, more time
    #[arg(long)]
    pub(super) grad_checkpoint: bool,

    /// Updates between validations [default: 500]
    #[arg(long, value_name = "N")]
    pub(super) steps_per_eval: Option<u64>,

    /// Windows of a validation; -1 is all [default: -1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub(super) val_windows: Option<i64>,

    /// Updates between reports [default: 10]
    #[arg(long, value_name = "N")]
    pub(super) steps_per_report: Option<u64>,

    /// Updates between saves [default: 500]
    #[arg(long, value_name = "N")]
    pub(super) save_every: Option<u64>,

    /// Checkpoints that are kept [default: 5]
    #[arg(long, value_name = "N")]
    pub(super) keep: Option<usize>,

    /// How many of the last checkpoints are averaged at the end; 0 is none [default: 5, or as many
    /// as are kept]
    #[arg(long, value_name = "N")]
    pub(super) average_last: Option<usize>,

    /// Seed of the initial weights and the order of the data [default: 0]
    #[arg(long, value_name = "N")]
    pub(super) seed: Option<u64>,

    /// Processes to start on this machine, which share each batch [default: 1, or those that
    /// mlx.launch started]
    #[arg(long, value_name = "N")]
    pub(super) ranks: Option<usize>,

    /// Seconds after which a process that does not answer counts as lost [default: 300]
    #[arg(long, value_name = "SECONDS")]
    pub(super) rank_timeout: Option<u64>,

    #[command(flatten)]
    pub(super) model: ModelSettings,
}

/// The architecture, by the names of Hugging Face's config.json.
#[derive(clap::Args, Deserialize, Default, Clone, PartialEq)]
#[serde(deny_unknown_fields, rename_all = "snake_case", default)]
pub(super) struct ModelSettings {
    /// Size to begin with: 270M, 450M, 1_1B or 3B; the options below change parts of it
    #[arg(long, value_name = "NAME")]
    pub(super) preset: Option<String>,

    /// Layers
    #[arg(long, value_name = "N")]
    #[serde(alias = "num_layers")]
    pub(super) num_transformer_layers: Option<usize>,

    /// Width of the residual stream
    #[arg(long, value_name = "N")]
    pub(super) model_dim: Option<usize>,

    /// Width of a head
    #[arg(long, value_name = "N")]
    pub(super) head_dim: Option<usize>,

    /// Query heads that share a key-value head
    #[arg(long, value_name = "N")]
    pub(super) num_gqa_groups: Option<usize>,

    /// Width of the query heads over model_dim, first and last layer (one number: every layer)
    #[arg(long, value_name = "X,X", value_delimiter = ',')]
    pub(super) qkv_multipliers: Option<Vec<f64>>,

    /// Inner width of the FFN over model_dim, first and last layer (one number: every layer)
    #[arg(long, value_name = "X,X", value_delimiter = ',')]
    pub(super) ffn_multipliers: Option<Vec<f64>>,

    /// What the FFN's inner width is a multiple of
    #[arg(long, value_name = "N")]
    pub(super) ffn_dim_divisor: Option<usize>,

    /// Rows of the embedding [default: the tokenizer's vocabulary]
    #[arg(long, value_name = "N")]
    pub(super) vocab_size: Option<usize>,

    /// Tokens that the model is made for [default: 2048]
    #[arg(long, value_name = "N")]
    pub(super) max_context_length: Option<usize>,

    /// Base of the rotary frequencies
    #[arg(long, value_name = "X")]
    pub(super) rope_freq_constant: Option<f64>,

    /// Whether the output head is the embedding [default: true]
    #[arg(long, value_name = "BOOL")]
    pub(super) share_input_output_layers: Option<bool>,
}

impl Settings {
    /// These, and where they say nothing, `file`.
    pub(super) fn over(self, file: Self) -> Self {
        macro_rules! merge {
            ($type:ident, $new:expr, $old:expr, $($option:ident)*; $($rest:tt)*) => {
                $type { $($option: $new.$option.or($old.$option),)* $($rest)* }
            };
        }
        let model = merge! {
            ModelSettings, self.model, file.model,
            preset num_transformer_layers model_dim head_dim num_gqa_groups qkv_multipliers
            ffn_multipliers ffn_dim_divisor vocab_size max_context_length rope_freq_constant
            share_input_output_layers;
        };
        merge! {
            Self, self, file,
            data valid text_key from tokenizer output steps batch_size micro_batch_size sequence_length
            assembly words_per_fragment min_characters min_tokens readers shuffle epochs learning_rate warmup weight_decay clip_norm z_loss label_smoothing ema_decay
            dtype save_dtype steps_per_eval val_windows steps_per_report save_every keep
            average_last seed ranks rank_timeout;
            grad_checkpoint: self.grad_checkpoint || file.grad_checkpoint,
            skip_corrupt: self.skip_corrupt || file.skip_corrupt,
            model,
        }
    }

    /// The run's folder.
    pub(super) fn folder(&self) -> PathBuf {
        self.output.clone().unwrap_or_else(|| "pretrained".into())
    }

    /// The architecture, for `tokenizer`.
    pub(super) fn config(&self, tokenizer: &Tokenizer) -> Result<Config, Error> {
        let config = match &self.from {
            None => Config::layer_wise(self.model.layer_wise(tokenizer)?)?,
            Some(_) if self.model != ModelSettings::default() => {
                return Err(Error::Usage(
                    "from: the model that is gone on with has its architecture; leave out [model] \
                     and its options"
                        .into(),
                ));
            }
            Some(folder) => Config::load(folder)?,
        };
        tokenizer.check_vocab(config.vocab_size())?;
        Ok(config)
    }

    /// How the run goes; the steps must be known.
    pub(super) fn options(&self) -> Result<PretrainOptions, Error> {
        let Some(steps) = self.steps else {
            return Err(Error::Usage("no number of steps; give --steps N".into()));
        };
        let defaults = Recipe::new(steps, self.model.preset()?);
        let recipe = Recipe {
            iters: steps,
            learning_rate: self.learning_rate.unwrap_or(defaults.learning_rate),
            warmup: self.warmup.unwrap_or(defaults.warmup),
        };
        let mut options = PretrainOptions::new(recipe);
        let trainer = &mut options.trainer;
        macro_rules! set {
            ($($option:ident = $place:expr;)*) => {
                $(if let Some(value) = self.$option { $place = value; })*
            };
        }
        set! {
            weight_decay = trainer.optimizer.weight_decay;
            z_loss = trainer.z_loss;
            label_smoothing = trainer.label_smoothing;
            batch_size = options.batch_size;
            micro_batch_size = options.micro_batch_size;
            steps_per_eval = options.steps_per_eval;
            save_every = options.save_every;
            keep = options.keep_checkpoints;
            seed = options.seed;
        }
        let trainer = &mut options.trainer;
        trainer.clip_norm = self.clip_norm.or(trainer.clip_norm);
        trainer.ema_decay = self.ema_decay;
        trainer.grad_checkpoint = self.grad_checkpoint;
        let dtype = |name: &Option<String>| name.as_deref().map(str::parse::<Dtype>).transpose();
        options.dtype = dtype(&self.dtype)?;
        options.save_dtype = dtype(&self.save_dtype)?.unwrap_or(Dtype::Float32);
        options.val_batches = self.val_windows.and_then(|n| usize::try_from(n).ok());
        options.average_last = self.average_last;
        options.tokenizer = self.tokenizer.clone().or_else(|| self.from.clone());
        options.model = self.from.clone();
        Ok(options)
    }
}

impl ModelSettings {
    fn preset(&self) -> Result<Option<Preset>, Error> {
        Ok(self.preset.as_deref().map(str::parse).transpose()?)
    }

    fn layer_wise(&self, tokenizer: &Tokenizer) -> Result<LayerWiseConfig, Error> {
        let preset = self.preset()?;
        Ok(new_architecture(preset, tokenizer, |made| {
            macro_rules! set {
            ($($option:ident)*) => { $(if let Some(value) = self.$option { made.$option = value; })* };
        }
            set! {
                num_transformer_layers model_dim head_dim ffn_dim_divisor vocab_size max_context_length
                rope_freq_constant share_input_output_layers
            }
            if self.num_gqa_groups.is_some() {
                made.num_gqa_groups = self.num_gqa_groups;
            }
            let multipliers = |list: &[f64]| match list {
                [one] => Multipliers::Uniform(*one),
                [first, last] => Multipliers::Range(*first, *last),
                all => Multipliers::PerLayer(all.to_vec()),
            };
            if let Some(list) = &self.qkv_multipliers {
                made.qkv_multipliers = multipliers(list);
            }
            if let Some(list) = &self.ffn_multipliers {
                made.ffn_multipliers = multipliers(list);
            }
        }))
    }
}
