//! Options of `openelm pretrain`, for the command line and TOML files.

use std::{
    fmt, mem,
    path::{Path, PathBuf},
};

use openelm_core::{
    Config, Tokenizer,
    corpus::{Assembly, CorpusOptions, Corrupt},
    output,
    pretrain::{CorpusSource, PretrainOptions, Recipe},
    train::ScheduleKind,
};
use serde::Deserialize;

use super::{architecture::Architecture, groups::Data, start};
use crate::{
    betas::Betas,
    choices::{Dtype, Packing},
    error::Error,
    hub::{self, Files},
    paths::Paths,
    settings::{all_or_count, count_or_all, defaults, exponent},
};

/// Options that are also valid in a TOML file.
#[derive(clap::Args, Deserialize, Clone, Debug)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub(super) struct Settings {
    /// Training files, folders and glob patterns, separated by commas or spaces: .jsonl, .json and
    /// .txt (also .gz and .zst), .parquet; or data sets of the Hub. A TOML file can have tables
    /// `[[data]]` of files, text-key, format and weight
    #[arg(long, value_name = "FILES", num_args = 1.., value_parser = Data::parser())]
    pub(super) data: Option<Vec<Data>>,

    /// Validation files
    #[arg(long, value_name = "FILES", num_args = 1.., value_parser = Paths::parser())]
    pub(super) valid: Option<Vec<Paths>>,

    /// Key of the text in a JSON line, or its column in a Parquet file; of several, separated by
    /// commas, the first one that is there
    #[arg(long, value_name = "KEYS", default_value_t = corpus().text_key)]
    pub(super) text_key: String,

    /// Model to continue from: a folder, a repository or CoreNet's .pt file; a training checkpoint
    /// of CoreNet continues at its iteration [default: new random weights]
    #[arg(long, alias = "from", value_name = "PATH|REPO")]
    #[serde(alias = "from")]
    pub(super) start_from: Option<PathBuf>,

    /// Tokenizer: a tokenizer.json or tokenizer.model, a folder or repository with one, or auto
    /// [default: the tokenizer of --start-from]
    #[arg(long, value_name = "PATH|REPO")]
    pub(super) tokenizer: Option<PathBuf>,

    /// Folder for the model, metrics and checkpoints
    #[arg(long, short, value_name = "FOLDER", default_value = "pretrained")]
    pub(super) output: PathBuf,

    /// Number of iterations (updates)
    #[arg(long, alias = "steps", value_name = "N")]
    #[serde(alias = "steps")]
    pub(super) iters: Option<u64>,

    /// Sequences per update, over all processes
    #[arg(long, value_name = "N", default_value_t = run().batch_size)]
    pub(super) batch_size: usize,

    /// Sequences per forward pass of a process
    #[arg(long, value_name = "N", default_value_t = run().micro_batch_size)]
    pub(super) micro_batch_size: usize,

    /// Tokens per sequence [default: the model's max_context_length]
    #[arg(long, alias = "sequence-length", value_name = "N")]
    #[serde(alias = "sequence-length")]
    pub(super) max_seq_length: Option<usize>,

    /// Packing of documents into sequences: concatenate documents (pack), or truncate each document
    /// (truncate, as in CoreNet)
    #[arg(
        long,
        alias = "assembly",
        value_name = "MODE",
        default_value_t = corpus().assembly.into()
    )]
    #[serde(alias = "assembly")]
    pub(super) packing: Packing,

    /// Words per fragment; documents are split into fragments
    #[arg(long, alias = "words-per-piece", value_name = "N", default_value_t = corpus().words_per_fragment)]
    #[serde(alias = "words-per-piece")]
    pub(super) words_per_fragment: usize,

    /// Repair the text as ftfy does, as CoreNet: encoding errors, HTML entities, quotes, ligatures,
    /// widths, control characters
    #[arg(long)]
    pub(super) clean_text: bool,

    #[arg(long, value_name = "N", help = format!(
            "Minimum characters per fragment; shorter ones are dropped {}",
            by_packing(|corpus| corpus.min_characters)
    ))]
    pub(super) min_characters: Option<usize>,

    #[arg(long, value_name = "N", help = format!(
            "Minimum tokens per fragment; shorter ones are dropped {}",
            by_packing(|corpus| corpus.min_tokens)
    ))]
    pub(super) min_tokens: Option<usize>,

    /// Files to interleave, one document from each in turn
    #[arg(long, alias = "readers", value_name = "N", default_value_t = corpus().readers)]
    #[serde(alias = "readers")]
    pub(super) interleave: usize,

    /// Give each process files of its own: each of the --interleave files belongs to one process
    #[arg(long)]
    pub(super) shard_files: bool,

    #[arg(long, value_name = "BOOL", help = format!(
        "Shuffle the files in the first epoch too {}",
        by_packing(|corpus| corpus.shuffle_files)
    ))]
    pub(super) shuffle_files: Option<bool>,

    #[arg(long, value_name = "N", help = format!(
        "Size of the shuffle buffer, in sequences; 0 keeps the order of the files, and is needed \
         with --shard-files {}",
        by_packing(|corpus| CorpusSource::default_shuffle(corpus.assembly))
    ))]
    pub(super) shuffle: Option<usize>,

    /// Maximum passes over the data; the run ends there, even before its last iteration [default:
    /// no limit]
    #[arg(long, value_name = "N")]
    pub(super) epochs: Option<u64>,

    /// Skip files and rows that cannot be read, instead of stopping at the first
    #[arg(long)]
    pub(super) skip_corrupt: bool,

    #[arg(long, alias = "lr", value_name = "X", help = format!(
        "Peak learning rate [default: CoreNet's for the preset, \
         times the square root of the tokens per update over {}; {} without a preset; needed with \
         --start-from]",
        Recipe::CORENET_TOKENS, exponent(recipe(1).learning_rate)
    ))]
    #[serde(alias = "lr")]
    pub(super) learning_rate: Option<f64>,

    #[arg(long, value_name = "N", help = format!(
        "Warm-up updates [default: {}, or a tenth of the iterations if that is less]",
        recipe(u64::MAX).warmup
    ))]
    pub(super) warmup: Option<u64>,

    #[arg(long, value_name = "X", help = format!(
        "Learning rate at the start of the warm-up [default: {}]",
        exponent(run().trainer.schedule.warmup_init)
    ))]
    pub(super) warmup_init: Option<f64>,

    /// Final learning rate [default: a tenth of the peak]
    #[arg(long, value_name = "X")]
    pub(super) lr_end: Option<f64>,

    #[arg(long, value_name = "B1,B2", help = format!(
        "Decay of the optimizer's moments [default: {}]",
        Betas(run().trainer.optimizer.betas)
    ))]
    pub(super) betas: Option<Betas>,

    /// Epsilon of the optimizer
    #[arg(long, value_name = "X", default_value = exponent(run().trainer.optimizer.eps))]
    pub(super) eps: f32,

    /// Weight decay of matrices
    #[arg(long, value_name = "X", default_value_t = run().trainer.optimizer.weight_decay)]
    pub(super) weight_decay: f32,

    /// Clip gradients to this global norm
    #[arg(long, value_name = "X", default_value_t = run().trainer.clip_norm.unwrap_or_default())]
    pub(super) clip_norm: f32,

    /// Weight of the z-loss
    #[arg(long, value_name = "X", default_value = exponent(run().trainer.z_loss))]
    pub(super) z_loss: f32,

    /// Report losses as CoreNet does: means of micro-batches, with padding in the z-loss
    #[arg(long)]
    pub(super) corenet_losses: bool,

    /// Label smoothing
    #[arg(long, value_name = "X", default_value_t = run().trainer.label_smoothing)]
    pub(super) label_smoothing: f32,

    /// Keep an exponential moving average of the weights with this decay
    #[arg(long, value_name = "X")]
    pub(super) ema_decay: Option<f32>,

    /// Data type of the computation; weights stay float32 [default: float32 on a CPU, bfloat16 on a
    /// GPU]
    #[arg(long, value_name = "TYPE", ignore_case = true)]
    pub(super) dtype: Option<Dtype>,

    /// Mixed precision as PyTorch's autocast, which CoreNet trains with: products in bfloat16, the
    /// rest in float32
    #[arg(long)]
    pub(super) autocast: bool,

    /// Data type of the saved weights
    #[arg(
        long,
        value_name = "TYPE",
        ignore_case = true,
        default_value_t = run().save_dtype.into()
    )]
    pub(super) save_dtype: Dtype,

    /// Recompute activations in the backward pass (gradient checkpointing): less memory, slower
    #[arg(long)]
    pub(super) grad_checkpoint: bool,

    /// Each process keeps its part of the weights, gradients and moments only (fully sharded data
    /// parallel), and computes one layer at a time: less memory, slower
    #[arg(long)]
    pub(super) fsdp: bool,

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

    /// The former option --val-batches, in windows.
    #[arg(
        long,
        hide = true,
        value_name = "N",
        allow_negative_numbers = true,
        conflicts_with = "val_batches"
    )]
    pub(super) val_windows: Option<i64>,

    /// Iterations between reports
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(super) steps_per_report: u64,

    /// Iterations between checkpoints
    #[arg(long, value_name = "N", default_value_t = run().save_every)]
    pub(super) save_every: u64,

    /// Number of checkpoints to keep
    #[arg(long, alias = "keep", value_name = "N", default_value_t = run().keep_checkpoints)]
    #[serde(alias = "keep")]
    pub(super) keep_checkpoints: usize,

    #[arg(long, value_name = "N", help = format!(
        "Number of the last checkpoints to average at the end; 0 is none [default: {}, or as many \
         as are kept]",
        run().averaged()
    ))]
    pub(super) average_last: Option<usize>,

    /// Random seed of the initial weights and the data order
    #[arg(long, value_name = "N", default_value_t = run().seed)]
    pub(super) seed: u64,

    /// Processes to start on this machine, which share each batch [default: 1, or the processes
    /// started by mlx.launch]
    #[arg(long, alias = "ranks", value_name = "N")]
    #[serde(alias = "ranks")]
    pub(super) processes: Option<usize>,

    /// Seconds without a response after which a process counts as lost
    #[arg(
        long,
        alias = "rank-timeout",
        value_name = "SECONDS",
        default_value_t = 300
    )]
    #[serde(alias = "rank-timeout")]
    pub(super) process_timeout: u64,

    #[command(flatten)]
    pub(super) model: Architecture,
}

fn recipe(iters: u64) -> Recipe {
    Recipe::new(iters, Recipe::CORENET_TOKENS, None)
}

fn run() -> PretrainOptions {
    PretrainOptions::new(recipe(1))
}

fn corpus() -> CorpusOptions {
    CorpusOptions::default()
}

/// Help text of a default that depends on --packing.
fn by_packing<T: fmt::Display>(default: fn(CorpusOptions) -> T) -> String {
    let [pack, truncate] = [Assembly::Pack, Assembly::Truncate].map(|assembly| {
        let value = default(CorpusOptions::new(assembly));
        format!("{value} with {}", Packing::from(assembly))
    });
    format!("[default: {pack}, {truncate}]")
}

impl Default for Settings {
    fn default() -> Self {
        defaults()
    }
}

impl Settings {
    /// Downloads the model, the tokenizer and the data that are names of repositories.
    pub(super) fn fetch(&mut self, quiet: bool) -> Result<(), Error> {
        if let Some(start) = &mut self.start_from {
            *start = hub::local_source(start, quiet)?;
        }
        if let Some(tokenizer) = &mut self.tokenizer {
            let given = mem::take(tokenizer);
            let model = self.start_from.clone().unwrap_or_default();
            self.tokenizer = hub::tokenizer(&given, &model, quiet)?;
        }
        let local = |paths| hub::local_all(paths, &Files::Dataset, quiet);
        if let Some(data) = &mut self.data {
            Data::replace(data, local)?;
        }
        if let Some(files) = &mut self.valid {
            *files = vec![Paths::from(local(Paths::all(files))?)];
        }
        Ok(())
    }

    /// The architecture, for `tokenizer`.
    pub(super) fn config(&self, tokenizer: &Tokenizer) -> Result<Config, Error> {
        let config = match &self.start_from {
            None => Config::layer_wise(self.model.layer_wise(tokenizer))?,
            Some(file) if file.is_file() => start::architecture(file, &self.model, tokenizer)?,
            Some(folder) if folder.is_dir() && self.model != Architecture::default() => {
                return Err(Error::Usage(
                    "--start-from: the model has its architecture; leave out [model] and its \
                     options"
                        .into(),
                ));
            }
            Some(folder) => Config::load(folder)?,
        };
        Ok(config)
    }

    /// The run's options, for sequences of `length` tokens; `iters` is required, and a learning rate
    /// for the weights of another run, whose schedule is unknown, unless they are those of a training
    /// checkpoint and the preset has a schedule.
    pub(super) fn options(&self, length: usize) -> Result<PretrainOptions, Error> {
        let Some(iters) = self.iters else {
            return Err(Error::Usage(
                "no number of iterations; use --iters N".into(),
            ));
        };
        if self.val_windows == Some(0) {
            let problem = "--val-windows: expected at least 1, found 0";
            return Err(Error::Usage(problem.into()));
        }
        let has_recipe = self.model.preset.is_some() && start::continued(self)?.is_some();
        if self.start_from.is_some() && self.learning_rate.is_none() && !has_recipe {
            let problem = "--learning-rate: expected with --start-from, found none; CoreNet's \
                           recipe ends at a tenth of its peak rate";
            return Err(Error::Usage(problem.into()));
        }
        let tokens = (self.batch_size as u64).saturating_mul(length as u64);
        let recipe = Recipe::new(iters, tokens, self.model.preset);
        let mut options = PretrainOptions::new(Recipe {
            learning_rate: self.learning_rate.unwrap_or(recipe.learning_rate),
            warmup: self.warmup.unwrap_or(recipe.warmup),
            ..recipe
        });
        let trainer = &mut options.trainer;
        trainer.optimizer.weight_decay = self.weight_decay;
        trainer.optimizer.eps = self.eps;
        if let Some(betas) = self.betas {
            trainer.optimizer.betas = betas.0;
        }
        if let Some(rate) = self.warmup_init {
            trainer.schedule.warmup_init = rate;
        }
        if let (Some(rate), ScheduleKind::CoreNet { end, .. }) =
            (self.lr_end, &mut trainer.schedule.kind)
        {
            *end = rate;
        }
        trainer.clip_norm = Some(self.clip_norm);
        trainer.z_loss = self.z_loss;
        trainer.label_smoothing = self.label_smoothing;
        trainer.corenet_losses = self.corenet_losses.then_some(length);
        trainer.ema_decay = self.ema_decay;
        trainer.grad_checkpoint = self.grad_checkpoint;
        trainer.autocast = self.autocast;
        let windows = self.val_windows.and_then(all_or_count);
        let in_batches = |windows: usize| windows.div_ceil(self.batch_size.max(1));
        Ok(PretrainOptions {
            batch_size: self.batch_size,
            micro_batch_size: self.micro_batch_size,
            fsdp: self.fsdp,
            model: self.start_from.clone(),
            seed: self.seed,
            dtype: self.dtype.map(Into::into),
            save_dtype: self.save_dtype.into(),
            steps_per_eval: self.steps_per_eval,
            val_batches: all_or_count(self.val_batches).or(windows.map(in_batches)),
            save_every: self.save_every,
            keep_checkpoints: self.keep_checkpoints,
            average_last: self.average_last,
            tokenizer: self.tokenizer_path(),
            ..options
        })
    }

    /// Options for reading the data in sequences of `length` tokens, for one of several processes.
    pub(super) fn corpus(
        &self,
        length: usize,
        rank: usize,
        world: usize,
    ) -> Result<CorpusOptions, Error> {
        let Some(data) = &self.data else {
            return Err(Error::Usage("no data; use --data FILES".into()));
        };
        let (files, groups) = Data::groups(data, &self.text_key);
        let defaults = CorpusOptions::new(self.packing.into());
        Ok(CorpusOptions {
            files,
            groups,
            clean_text: self.clean_text,
            text_key: self.text_key.clone(),
            sequence_length: length,
            words_per_fragment: self.words_per_fragment,
            min_characters: self.min_characters.unwrap_or(defaults.min_characters),
            min_tokens: self.min_tokens.unwrap_or(defaults.min_tokens),
            readers: self.interleave,
            shard_files: self.shard_files,
            shuffle_files: self.shuffle_files.unwrap_or(defaults.shuffle_files),
            rank,
            world,
            seed: self.seed,
            epochs: self.epochs,
            on_corrupt: if self.skip_corrupt {
                Corrupt::Skip
            } else {
                Corrupt::Stop
            },
            ..defaults
        })
    }

    /// Refuses an output folder that contains an input, among them the TOML file `config`, or that
    /// would become data.
    pub(super) fn check_output(&self, config: Option<&Path>) -> Result<(), Error> {
        let paths = [
            ("--config", config),
            ("--tokenizer", self.tokenizer.as_deref()),
            ("--start-from", self.start_from.as_deref()),
        ];
        let paths = paths
            .into_iter()
            .filter_map(|(name, path)| Some((name, path?)));
        let data = self.data.as_deref().map(Data::paths);
        let valid = self.valid.as_deref().map(Paths::all);
        let data = data.iter().flatten().map(PathBuf::as_path);
        let valid = valid.iter().flatten().map(PathBuf::as_path);
        let read = data.clone().map(|path| ("--data", path));
        let read = read.chain(valid.clone().map(|path| ("--valid", path)));
        output::check_inputs(&self.output, paths.chain(read))?;
        output::check_outside_data(&self.output, data.chain(valid))?;
        Ok(())
    }

    /// Path of the tokenizer.
    pub(super) fn tokenizer_path(&self) -> Option<PathBuf> {
        let start = self.start_from.as_deref();
        // A tokenizer is beside a file.
        let start = start.map(|path| match path.parent() {
            Some(folder) if path.is_file() => Path::new(".").join(folder),
            _ => path.to_path_buf(),
        });
        self.tokenizer.clone().or(start)
    }

    /// Tokens per sequence.
    pub(super) fn sequence_length(&self, config: &Config) -> usize {
        self.max_seq_length.unwrap_or(config.max_context_length())
    }
}

#[cfg(test)]
mod tests;
